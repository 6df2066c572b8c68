"""The bot rule, on its own words and, where the reference data is there, on real crawlers and real visitors."""

import gzip
import json

import pytest

from connectors.http.client import classify_user_agent, is_mail_client
from tests.harness.support import data_path

BROWSERS = [
    (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 "
        "Safari/537.36 Vivaldi/8.1",
        "desktop",
    ),
    ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:140.0) Gecko/20100101 Firefox/140.0", "desktop"),
    ("Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko", "desktop"),
    ("Mozilla/5.0 (compatible; MSIE 10.0; Windows NT 6.2; Trident/6.0)", "desktop"),
    (
        "Mozilla/5.0 (Linux; Android 13; CUBOT P80) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Mobile "
        "Safari/537.36",
        "mobile",
    ),
    (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 "
        "[FBAN/FBIOS;FBAV/500.0]",
        "mobile",
    ),
    (
        "Mozilla/5.0 (Linux; Android 14; SM-X200) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 "
        "Safari/537.36",
        "tablet",
    ),
]
BOTS = [
    "",
    "-",
    "curl/8.5.0",
    "python-requests/2.32",
    "Mozilla/5.0",
    "Mozilla/5.0 (compatible; Unheard/1.0)",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/150.0.0.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36 Zyx/1.0",
    "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko; Zyx) Chrome/150.0.0.0 Safari/537.36",
]


@pytest.mark.parametrize(("user_agent", "device"), BROWSERS)
def test_browsers_are_not_bots(user_agent: str, device: str) -> None:
    assert classify_user_agent(user_agent) == (False, device)


@pytest.mark.parametrize("user_agent", BOTS)
def test_programs_are_bots(user_agent: str) -> None:
    assert classify_user_agent(user_agent) == (True, "bot")


MAIL_CLIENTS = [
    "Mozilla/5.0",
    "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html",
    "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
    "Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.17928; Pro)",
    "Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 10.0; ms-office; MSOffice 16)",
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Thunderbird/140.2.0",
]


@pytest.mark.parametrize("user_agent", MAIL_CLIENTS)
def test_mail_clients_are_not_bots(user_agent: str) -> None:
    assert is_mail_client(user_agent)
    assert classify_user_agent(user_agent)[0] or "MSIE" in user_agent, "elsewhere than in mail they are programs"


@pytest.mark.parametrize("user_agent", [one for one in BOTS if one != "Mozilla/5.0"] + [one for one, _ in BROWSERS])
def test_other_programs_are_not_mail_clients(user_agent: str) -> None:
    assert not is_mail_client(user_agent)


def test_bot_rule_on_recorded_user_agents() -> None:
    with gzip.open(data_path("crawler-user-agents.json.gz")) as file:
        crawlers = [agent for entry in json.load(file) for agent in entry["instances"]]
    with gzip.open(data_path("user-agents.json.gz")) as file:
        visitors = json.load(file)
    found = sum(classify_user_agent(agent)[0] for agent in crawlers) / len(crawlers)
    alarms = sum(classify_user_agent(one["userAgent"])[0] for one in visitors) / len(visitors)
    devices = sum(classify_user_agent(one["userAgent"])[1] == one["deviceCategory"] for one in visitors) / len(visitors)
    assert found >= 0.99
    assert alarms <= 0.001
    assert devices >= 0.98
