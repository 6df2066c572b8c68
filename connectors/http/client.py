"""Client classification: bot and device class by user agent, country and rate-limit network by IP address.

Events of bots are stored and marked, not rejected; bots get no messages. Detection first looks for known words
("crawl", "headless"), then checks whether the user agent has the structure of a browser's. The structure check also
finds unlisted crawlers. The IP address itself is not stored.
"""

import ipaddress
import re
from functools import lru_cache
from typing import Final

import iptocc
import ua_parser

MAX_USER_AGENT: Final = 512
"""Characters of a user agent that are examined."""

# "CUBOT" is a phone brand; any other "bot" is a bot.
_BOT_WORDS: Final = re.compile(
    r"(?<!cu)bot|crawl|spider|slurp|scan(?!d)|scrap[ei]|fetch|monitor|check|preview|headless|lighthouse|synthetic|probe|"
    r"archiv|valida|verif|feed|\brss|rss\b|subscriber|reader|curl|wget|python|java\b|java/|ruby|perl|php|golang|go-http|okhttp|"
    r"axios|\bnode|library|client\b|agent|audit|inspect|selenium|phantom|puppeteer|playwright|cypress|webdriver|"
    r"screenshot|thumb|survey|resolver|optimi[sz]|proxy|download|harvest|collect|extract|index|metrix|\bping|uptime|"
    r"sitemap|\bseo|search|vulnerab|security|httrack|nikto|openvas|watcher|researcher|analy[sz]er|aggregat|"
    r"generator|transcod|capture|render|snoop|sniff|splash|google-|googleweb|insights|integrity|batch|\btest",
    re.IGNORECASE,
)
_CONTACT_ADDRESS: Final = re.compile(
    r"https?:|www\.|@[\w-]*[a-z][\w-]*\.|\(at\)|\b[a-z][\w-]*\.(?:com|org|net|io|co|ai|app|dev|info|eu|de|fr|uk|ru|cn|ly|edu|me)\b",
    re.IGNORECASE,
)
_COMMENT: Final = re.compile(r"\([^()]*(?:\([^()]*\)[^()]*)*\)")
_LIKE_GECKO: Final = re.compile(r"KHTML, like Gecko(?!\)|, Mobile|$)", re.IGNORECASE)
_ENGINE: Final = re.compile(r"AppleWebKit|Gecko|Trident|MSIE |Presto|Goanna|KHTML|NetFront|UCWEB|Opera ")
_MOBILE: Final = re.compile(r"Mobile|iPhone|iPod|; wv\)|Android|Opera Mini|Windows Phone|BlackBerry|IEMobile")
_TABLET: Final = re.compile(r"iPad|Tablet|PlayBook|Kindle|Silk/|Nexus (?:7|9|10)\b|SM-T\d")
_BROWSER_PREFIX: Final = re.compile(r"^(?:Mozilla/\d+\.\d+ [(\[]|Opera/\d|UCWEB/\d)")

# Product names in desktop browsers. A desktop user agent with any other product name is a bot.
_DESKTOP_PRODUCTS: Final = frozenset(
    re.findall(
        r"\S+",
        """
    mozilla applewebkit safari chrome chromium version gecko firefox edg edge edga opr opera presto vivaldi brave ddg
    yabrowser yowser yptst samsungbrowser whale seamonkey palemoon goanna waterfox librewolf epiphany konqueror khtml
    falkon iceweasel icecat camino maxthon sleipnir qqbrowser qqbrowserlite metasr 360se ucbrowser ubrowser puffin
    duckduckgo ecosia avast avg ccleaner norton iron dragon comodo_dragon coc_coc_browser ubuntu fedora debian
    raspbian cros qtwebengine avira atomic silk bytedancewebview instagram snapchat pinterest honorlock
    windowswechat micromessenger wxwork nettype macwechat teams slack gls mobile like trident lbbrowser midori
    netscape navigator k-meleon basilisk sznprohlizec sputnik atom kiwi arc sidekick wavebox herring cent
    sa viewer fxios crios edgios gsa electron oculusbrowser playstation xbox hbbtv smarttv web0s large lang
""",
    )
)

# Programs that load the images of an email: proxies of providers (Google, Yahoo) and email clients.
_MAIL_CLIENT: Final = re.compile(
    r"GoogleImageProxy|YahooMailProxy|Microsoft Office/|Microsoft Outlook|ms-office|MSOffice|^Outlook-(?:iOS|Android)|"
    r" Thunderbird/| Postbox/"
)
_APPLE_MAIL_PROXY: Final = "Mozilla/5.0"
"""The complete user agent of Apple's proxy."""


def is_mail_client(user_agent: str) -> bool:
    """Return True for an email client or image proxy. Meaningful for the tracking GIF only.

    >>> is_mail_client("Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)")
    True
    >>> is_mail_client("Mozilla/5.0 (compatible; Unheard/2.0)")
    False
    """
    text = user_agent[:MAX_USER_AGENT].strip()
    return text == _APPLE_MAIL_PROXY or _MAIL_CLIENT.search(text) is not None


def is_bot(user_agent: str) -> bool:
    """Return True if a user agent is not a person's browser.

    >>> is_bot("Mozilla/5.0 (compatible; Unheard/2.0)")
    True
    >>> is_bot("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
    False
    """
    if (
        _BROWSER_PREFIX.match(user_agent) is None
        or _BOT_WORDS.search(user_agent)
        or _CONTACT_ADDRESS.search(user_agent)
    ):
        return True
    if "compatible" in user_agent and "MSIE" not in user_agent and "Konqueror" not in user_agent:
        return True
    if _ENGINE.search(user_agent) is None or _LIKE_GECKO.search(user_agent):
        return True
    if not user_agent.startswith("Mozilla") or _MOBILE.search(user_agent):
        return False  # in-app browsers of phones append arbitrary products
    products = _COMMENT.sub(" ", user_agent).replace(";", " ; ").split()
    return any(_is_unknown_product(product) for product in products)


def _is_unknown_product(product: str) -> bool:
    name, slash, _ = product.partition("/")
    if name.lower() in _DESKTOP_PRODUCTS:
        return False
    return bool(slash) or not name.replace(".", "").isdigit()


@lru_cache(maxsize=8192)
def classify_user_agent(user_agent: str) -> tuple[bool, str]:
    """Return (is bot, device class); classes are "bot", "mobile", "tablet" and "desktop".

    >>> ipad = "Mozilla/5.0 (iPad; CPU OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Safari/604.1"
    >>> classify_user_agent(ipad)
    (False, 'tablet')
    >>> classify_user_agent("curl/8.5.0")
    (True, 'bot')
    """
    text = user_agent[:MAX_USER_AGENT].strip()
    if is_bot(text):
        return True, "bot"
    known = ua_parser.parse_device(text)
    if known is not None and known.family == "Spider":
        return True, "bot"
    if _TABLET.search(text) or ("Android" in text and "Mobile" not in text):
        return False, "tablet"
    return False, "mobile" if _MOBILE.search(text) else "desktop"


@lru_cache(maxsize=16_384)
def country(address: str) -> str | None:
    """Return the ISO code of the country that an address is registered in; None for private and invalid ones.

    >>> country("8.8.8.8"), country("192.168.0.1"), country("nonsense")
    ('US', None, None)
    """
    found: str | None = iptocc.country_code(address)
    return found


@lru_cache(maxsize=16_384)
def rate_limit_network(address: str) -> str:
    """Return the network that shares a rate limit: an IPv4 address, or the /64 of an IPv6 address.

    >>> [rate_limit_network(address) for address in ("192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7", "x")]
    ['192.0.2.7', '2001:db8::', '192.0.2.7', '']
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(found) >> 64 << 64))


def client_address(peer: str, forwarded_for: str, trust_proxy: bool) -> str:
    """Return the client's address: the last one in X-Forwarded-For behind a trusted proxy, else the socket's peer.

    >>> client_address("10.0.0.2", "6.6.6.6, 8.8.8.8", True), client_address("10.0.0.2", "6.6.6.6", False)
    ('8.8.8.8', '10.0.0.2')
    """
    if trust_proxy and forwarded_for:
        return forwarded_for.rpartition(",")[2].strip()
    return peer


def is_loopback(address: str) -> bool:
    """Return True for a loopback address.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("10.0.0.1"), is_loopback("")
    (True, True, False, False)
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback
