"""Bots and devices: what a user agent says about who is calling.

A bot is marked, not refused: its events stay in the log, and nobody wastes a popup on it. The rule reads a user
agent the way a doorman reads a face: known words first ("crawl", "headless"), then whether the whole has the shape
of a browser at all. The shape is what finds crawlers nobody has listed yet.
"""

import re
from functools import lru_cache
from typing import Final

import ua_parser

MAX_USER_AGENT: Final = 512
"""Characters of a user agent that are looked at."""

# "CUBOT" is a brand of phones; every other "bot" is one.
_WORDS: Final = re.compile(
    r"(?<!cu)bot|crawl|spider|slurp|scan(?!d)|scrap[ei]|fetch|monitor|check|preview|headless|lighthouse|synthetic|probe|"
    r"archiv|valida|verif|feed|\brss|rss\b|subscriber|reader|curl|wget|python|java\b|java/|ruby|perl|php|golang|go-http|okhttp|"
    r"axios|\bnode|library|client\b|agent|audit|inspect|selenium|phantom|puppeteer|playwright|cypress|webdriver|"
    r"screenshot|thumb|survey|resolver|optimi[sz]|proxy|download|harvest|collect|extract|index|metrix|\bping|uptime|"
    r"sitemap|\bseo|search|vulnerab|security|httrack|nikto|openvas|watcher|researcher|analy[sz]er|aggregat|"
    r"generator|transcod|capture|render|snoop|sniff|splash|google-|googleweb|insights|integrity|batch|\btest",
    re.IGNORECASE,
)
_ADDRESS: Final = re.compile(
    r"https?:|www\.|@[\w-]*[a-z][\w-]*\.|\(at\)|\b[a-z][\w-]*\.(?:com|org|net|io|co|ai|app|dev|info|eu|de|fr|uk|ru|cn|ly|edu|me)\b",
    re.IGNORECASE,
)
_COMMENT: Final = re.compile(r"\([^()]*(?:\([^()]*\)[^()]*)*\)")
_LIKE_GECKO: Final = re.compile(r"KHTML, like Gecko(?!\)|, Mobile|$)", re.IGNORECASE)
_ENGINE: Final = re.compile(r"AppleWebKit|Gecko|Trident|MSIE |Presto|Goanna|KHTML|NetFront|UCWEB|Opera ")
_MOBILE: Final = re.compile(r"Mobile|iPhone|iPod|; wv\)|Android|Opera Mini|Windows Phone|BlackBerry|IEMobile")
_TABLET: Final = re.compile(r"iPad|Tablet|PlayBook|Kindle|Silk/|Nexus (?:7|9|10)\b|SM-T\d")
_HEAD: Final = re.compile(r"^(?:Mozilla/\d+\.\d+ [(\[]|Opera/\d|UCWEB/\d)")

# Product names of browsers people use on a desktop. What is not here and sits in a desktop user agent is a program.
_DESKTOP: Final = frozenset(re.findall(r"\S+", """
    mozilla applewebkit safari chrome chromium version gecko firefox edg edge edga opr opera presto vivaldi brave ddg
    yabrowser yowser yptst samsungbrowser whale seamonkey palemoon goanna waterfox librewolf epiphany konqueror khtml
    falkon iceweasel icecat camino maxthon sleipnir qqbrowser qqbrowserlite metasr 360se ucbrowser ubrowser puffin
    duckduckgo ecosia avast avg ccleaner norton iron dragon comodo_dragon coc_coc_browser ubuntu fedora debian
    raspbian cros qtwebengine avira atomic silk bytedancewebview instagram snapchat pinterest honorlock
    windowswechat micromessenger wxwork nettype macwechat teams slack gls mobile like trident lbbrowser midori
    netscape navigator k-meleon basilisk sznprohlizec sputnik atom kiwi arc sidekick wavebox herring cent
    sa viewer fxios crios edgios gsa electron oculusbrowser playstation xbox hbbtv smarttv web0s large lang
"""))

# Who loads the images of a mail for a person: providers' proxies (Google, Yahoo) and programs that are no browsers.
_MAIL: Final = re.compile(
    r"GoogleImageProxy|YahooMailProxy|Microsoft Office/|Microsoft Outlook|ms-office|MSOffice|^Outlook-(?:iOS|Android)|"
    r" Thunderbird/| Postbox/")
_PRIVATE: Final = "Mozilla/5.0"
"""All that Apple's proxy says of itself."""


def is_mail(user_agent: str) -> bool:
    """Whether a user agent loads images for somebody who reads mail. Only for the GIF: elsewhere it may be anything.

    >>> is_mail("Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)")
    True
    >>> is_mail("Mozilla/5.0 (compatible; Unheard/2.0)")
    False
    """
    text = user_agent[:MAX_USER_AGENT].strip()
    return text == _PRIVATE or _MAIL.search(text) is not None


def is_program(text: str) -> bool:
    """Whether a user agent is a program's and not a person's browser.

    >>> is_program("Mozilla/5.0 (compatible; Unheard/2.0)")
    True
    >>> is_program("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
    False
    """
    if _HEAD.match(text) is None or _WORDS.search(text) or _ADDRESS.search(text):
        return True
    if "compatible" in text and "MSIE" not in text and "Konqueror" not in text:
        return True
    if _ENGINE.search(text) is None or _LIKE_GECKO.search(text):
        return True
    if not text.startswith("Mozilla") or _MOBILE.search(text):
        return False  # in-app browsers of phones append what they like
    products = _COMMENT.sub(" ", text).replace(";", " ; ").split()
    return any(_unknown(product) for product in products)


def _unknown(product: str) -> bool:
    name, slash, _ = product.partition("/")
    if name.lower() in _DESKTOP:
        return False
    return bool(slash) or not name.replace(".", "").isdigit()


@lru_cache(maxsize=8192)
def judge(user_agent: str) -> tuple[bool, str]:
    """(bot?, device class): "bot", "mobile", "tablet" or "desktop".

    >>> judge("Mozilla/5.0 (iPad; CPU OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Safari/604.1")
    (False, 'tablet')
    >>> judge("curl/8.5.0")
    (True, 'bot')
    """
    text = user_agent[:MAX_USER_AGENT].strip()
    if is_program(text):
        return True, "bot"
    known = ua_parser.parse_device(text)
    if known is not None and known.family == "Spider":
        return True, "bot"
    if _TABLET.search(text) or ("Android" in text and "Mobile" not in text):
        return False, "tablet"
    return False, "mobile" if _MOBILE.search(text) else "desktop"
