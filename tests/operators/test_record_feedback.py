"""What is written to a person, and what the world says of it: only what is ours changes anything, each state once."""

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import action
from domain.action import Message, RenderedContent
from domain.event import CollectorContext, Event, Identify, Page, Track
from domain.event import EventContext as About
from operators import update_profile
from operators.compose import MAX_CONTEXT_BYTES, build_message, limit_values
from state.context import StepContext
from state.decisions import messages
from state.decisions.experiments import Assignment
from state.merge import build_merge_response, merge_into
from state.person import codec
from state.person.addresses import (
    MAX_SUPPRESSED_ADDRESSES,
    address_of,
    hash_address,
    reachable_address,
    reachable_addresses,
    suppress_address,
    unreachable_reason,
)
from state.person.model import MAX_CONSENT, MAX_MESSAGES, PendingSend, Person, ProfileFragment, SentMessage, Trait
from state.playbook.compiled import compile_rules
from state.profile.profile import merged_profile
from tests.harness.person import T0, make_playbook

HOUR = 3_600_000
TRIGGER = {"trigger": {"event": "Product Added"}}
CAMPAIGNS = {
    "hello": {"format": "email", **TRIGGER, "content": {"default": {"title": "{{ first_name }}"}}},
    "text": {"format": "sms", **TRIGGER},
    "order": {"format": "email", "purpose": "service", **TRIGGER},
    "news": {
        "format": "email",
        "purpose": "news",
        "valid_for": "2h",
        **TRIGGER,
        "variants": {"a": {}, "b": {"content": {"default": {"title": "B"}}}},
    },
}
INVALID_EMAILS = [
    "ann@x.example\r\nBcc: all@x.example",
    "ann@x.example\nX: y",
    "ann@x.example, bob@x.example",
    "<ann@x.example>",
    '"ann"@x.example',
    "ann@x.example\0",
    "ann x@x.example",
    "-oQ/tmp@x.example",
    "ann@x.example;rm",
    "@x.example",
    "ann@",
    "ann",
    "ann@@x.example",
    "ann@x",
    "ann@-x.example",
    "ann@x..example",
    ".ann@x.example",
    "a..n@x.example",
    "ann.@x.example",
    "ann@x.example\u2028",
    "ann@x.example\u202e",
    "a" * 65 + "@x.example",
    "a@" + "x" * 300 + ".it",
    "a@" + "x" * 64 + ".it",
    "`id`@x.example",
    "$(id)@x.example",
    "a|b@x.example",
    "a@x.example%0d",
    "a\\@x.example",
    "a@[127.0.0.1]",
    "a@127.0.0.1",
    "",
]
VALID_EMAILS = [
    "ann@x.example",
    "Ann.O'Neil+tag@mail.x.example",
    "ä.ö@müller.example",
    "a_b-c=d@xn--mller-kva.example",
    "a@x.xn--p1ai",
    "1@2.example",
    "a@" + "x" * 63 + ".it",
]


class FeedbackHarness:
    """A known person, and events that come to her."""

    def __init__(self, **traits: Any) -> None:
        self.person, self.now, self.event_count = Person("u:ann"), T0, 0
        self.context = StepContext(0, compile_rules(make_playbook(campaigns=CAMPAIGNS)))
        self.apply(Identify(traits={"email": "ann@x.example", "phone": "+39333123456", "first_name": "Ann", **traits}))

    def apply(self, event: Event, after: int = 1_000, late: int = 0) -> list[Any]:
        self.event_count += 1
        self.now += after
        event = msgspec.structs.replace(event, message_id=f"m{self.event_count}", user_id="ann")
        self.context.start_input(f"people-0-{self.event_count}", self.now, self.now - late)
        return list(update_profile.step(self.person, event, self.context))

    def emit(self, event: str, message: Message | None = None, /, after: int = 1_000, **properties: Any) -> list[Any]:
        if message is not None:
            properties["message_id"] = message.id
        return self.apply(Track(event=event, properties=properties), after)

    def write_message(self, campaign: str = "hello", variant: str = "") -> Message:
        """The campaign was decided, as decide does it."""
        self.event_count += 1
        self.context.start_input(f"carts-0-{self.event_count}", self.now, self.now)
        message = build_message(
            self.person,
            merged_profile(self.person),
            self.context.rules.campaigns[campaign],
            Assignment(variant, 0.5, ""),
            RenderedContent(title="Hello"),
            self.context,
        )
        self.person.pending_sends.append(PendingSend(message.id, campaign, message.not_after))
        self.person.timers["reserved:" + message.id] = message.not_after
        return message

    @property
    def states(self) -> list[str]:
        return [written.status for written in self.person.messages]

    def exposure_count(self, campaign: str = "hello") -> int:
        said = self.person.exposures.get(campaign)
        return said.total if said is not None else 0


# -- the message ------------------------------------------------------------------------------------------------------


def test_message_contains_all_fields_for_delivery() -> None:
    ann = FeedbackHarness()
    facts = ann.person.own_fragment()
    facts.locale, facts.timezone = "it-IT", "Europe/Rome"
    message = ann.write_message()
    assert (message.id, message.person, message.channel, message.campaign) == (
        "carts-0-2-decide-0",
        "u:ann",
        "email",
        "hello",
    )
    assert message.addresses == {"email": "ann@x.example", "phone": "+39333123456"}
    assert message.consent == {"marketing": "default", "email:marketing": "default"}
    assert message.context["first_name"] == "Ann"
    assert (message.language, message.timezone) == ("it-IT", "Europe/Rome")
    assert (message.not_before, message.not_after) == (ann.now, ann.now + 24 * HOUR)
    assert message.because.trigger == 'event "Product Added"'
    assert ann.write_message("news").not_after == ann.now + 2 * HOUR, "valid_for"
    assert [one.message_id for one in ann.person.messages] == [message.id, "carts-0-3-decide-0"]


def test_content_key_depends_only_on_content() -> None:
    one, other = FeedbackHarness(), FeedbackHarness(first_name="Bob")
    assert one.write_message().content_key == other.write_message().content_key
    keys = {one.write_message("news", side).content_key for side in ("", "a", "b")}
    assert {key.rpartition("/")[0] for key in keys} == {"news/default", "news/a", "news/b"}
    changed = FeedbackHarness()
    changed.context.rules = compile_rules(
        make_playbook(
            campaigns={
                **CAMPAIGNS,
                "hello": {**CAMPAIGNS["hello"], "content": {"default": {"title": "Hi {{ first_name }}"}}},
            }
        )
    )
    assert changed.write_message().content_key != one.write_message().content_key


def test_message_reports_consent_as_answered() -> None:
    ann = FeedbackHarness()
    ann.emit("Consent Updated", marketing=True, **{"email:marketing": False})
    assert ann.write_message().consent == {"marketing": "granted", "email:marketing": "denied"}


@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.floats(allow_nan=False),
        lambda inner: st.lists(inner, max_size=40) | st.dictionaries(st.text(), inner, max_size=5),
        max_leaves=60,
    )
)
def test_message_context_is_bounded(value: Any) -> None:
    found = limit_values({"a": value, "b": "x" * 5_000, "c": "y" * 5_000})
    assert len(msgspec.json.encode(found)) <= MAX_CONTEXT_BYTES + 10
    assert "b" in found or "c" in found or len(msgspec.json.encode(value)) > 2_000


# -- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", INVALID_EMAILS)
def test_invalid_email_is_no_address(text: str) -> None:
    facts = ProfileFragment(traits={"email": Trait(1, text)})
    assert reachable_address(Person("u:ann"), facts, "email") == ""
    assert unreachable_reason(Person("u:ann"), facts, "email")[0] == "no_address"


@pytest.mark.parametrize("text", VALID_EMAILS)
def test_valid_email_is_an_address(text: str) -> None:
    assert reachable_address(Person("u:ann"), ProfileFragment(traits={"email": Trait(1, text)}), "email") == text


@given(st.text(max_size=300))
def test_addresses_contain_no_separators(text: str) -> None:
    for name, channel in (("email", "email"), ("phone", "sms"), ("push_token", "push"), ("chat_id", "chat")):
        found = reachable_address(Person("u:ann"), ProfileFragment(traits={name: Trait(1, text)}), channel)
        assert found.isprintable()
        assert not set(found) & set(" ,;<>\"'\\\r\n") - set("'")
        assert not found.startswith("-")


@pytest.mark.parametrize(
    ("trait", "channel", "value", "expected"),
    [
        ("phone", "sms", "+39 333 123 4567", "+393331234567"),
        ("phone", "sms", 393331234567, "393331234567"),
        ("phone", "sms", True, ""),
        ("phone", "sms", 3.5, ""),
        ("phone", "sms", None, ""),
        ("phone", "sms", "12345", ""),
        ("phone", "sms", "+39333123456\n", ""),
        ("phone", "sms", "٣٣٣١٢٣٤٥٦", ""),
        ("phone", "sms", "1" * 16, ""),
        ("push_token", "push", "x" * 256, ""),
        ("push_token", "push", "a" * 64, "a" * 64),
        ("chat_id", "chat", 4711, "4711"),
        ("chat_id", "chat", "@ann", "@ann"),
        ("chat_id", "chat", "-1", ""),
    ],
)
def test_addresses_of_other_channels(trait: str, channel: str, value: Any, expected: str) -> None:
    assert reachable_address(Person("u:ann"), ProfileFragment(traits={trait: Trait(1, value)}), channel) == expected


def test_file_and_webhook_need_no_address() -> None:
    assert (
        reachable_address(Person("a:x"), ProfileFragment(), "file")
        == reachable_address(Person("a:x"), ProfileFragment(), "webhook")
        == "a:x"
    )
    assert reachable_address(Person("a:x"), ProfileFragment(), "pigeon") == ""
    assert reachable_addresses(Person("a:x"), ProfileFragment()) == {}


def test_hard_bounce_suppresses_only_the_address() -> None:
    ann = FeedbackHarness()
    ann.emit("Message Bounced", ann.write_message(), type="hard", reason="550 no\r\nsuch user")
    facts = merged_profile(ann.person)
    assert reachable_address(ann.person, facts, "email") == ""
    assert unreachable_reason(ann.person, facts, "email")[0] == "suppressed_address"
    assert address_of(facts, "email") == "ann@x.example"
    assert reachable_addresses(ann.person, facts) == {"phone": "+39333123456"}
    decision = ann.person.decisions["hello"]
    assert (decision.kind, decision.reason, decision.detail) == ("suppress", "bounced", "550 no such user")
    ann.apply(Identify(traits={"email": "ann@x.example"}))
    assert reachable_address(ann.person, merged_profile(ann.person), "email") == "", (
        "the same address, said once more, is no new one"
    )
    ann.apply(Identify(traits={"email": "ann@new.example"}))
    assert reachable_address(ann.person, merged_profile(ann.person), "email") == "ann@new.example"


def test_bounce_does_not_suppress_a_newer_address() -> None:
    ann = FeedbackHarness()
    old = ann.write_message()
    ann.apply(Identify(traits={"email": "ann@new.example"}))
    ann.emit("Message Bounced", old, hard=True)
    assert reachable_address(ann.person, merged_profile(ann.person), "email") == "ann@new.example"


@pytest.mark.parametrize("properties", [{}, {"type": "soft"}, {"hard": "yes"}, {"type": ["hard"]}, {"hard": 1}])
def test_soft_bounce_suppresses_nothing(properties: dict[str, Any]) -> None:
    ann = FeedbackHarness()
    ann.emit("Message Bounced", ann.write_message(), **properties)
    assert ann.states == ["bounced"]
    assert reachable_address(ann.person, merged_profile(ann.person), "email") == "ann@x.example"


def test_suppressed_addresses_are_bounded() -> None:
    person = Person("u:ann")
    for n in range(50):
        suppress_address(person, "email", hash_address(f"a{n}@x.example"), n)
    assert len(person.suppressed_addresses) == MAX_SUPPRESSED_ADDRESSES
    assert min(person.suppressed_addresses.values()) == 50 - MAX_SUPPRESSED_ADDRESSES


# -- what comes back --------------------------------------------------------------------------------------------------


def test_delivery_counts_as_one_exposure() -> None:
    ann = FeedbackHarness()
    message = ann.write_message()
    for _ in range(3):
        ann.emit("Message Delivered", message, campaign="other", channel="sms")
    assert (ann.exposure_count(), ann.states, ann.person.pending_sends) == (1, ["delivered"], [])
    assert "reserved:" + message.id not in ann.person.timers
    assert ann.person.decisions["hello"].kind == "shown"
    assert merged_profile(ann.person).lifetime_counts["Message Delivered"].count == 3, (
        "each is counted as an event all the same"
    )


@pytest.mark.parametrize(
    "order", list(itertools.permutations(["Message Delivered", "Message Opened", "Message Clicked"]))
)
def test_feedback_order_does_not_matter(order: tuple[str, ...]) -> None:
    ann = FeedbackHarness()
    message = ann.write_message()
    for event in (*order, *order):
        ann.emit(event, message)
    assert (ann.exposure_count(), ann.states, ann.person.pending_sends) == (1, ["clicked"], [])


def test_suppressed_message_releases_its_reservation() -> None:
    ann = FeedbackHarness()
    message = ann.write_message()
    ann.emit("Message Suppressed", message, reason="no_channel", detail="nobody sends\nemail")
    assert (ann.exposure_count(), ann.states, ann.person.pending_sends) == (0, ["suppressed"], [])
    decision = ann.person.decisions["hello"]
    assert (decision.kind, decision.reason, decision.detail) == ("suppress", "no_channel", "nobody sends email")
    ann.emit("Message Delivered", message)
    assert (ann.exposure_count(), ann.states) == (1, ["delivered"]), "the truth wins"
    ann.emit("Message Suppressed", message, reason="stale")
    assert (ann.exposure_count(), ann.states) == (1, ["delivered"])


@pytest.mark.parametrize("event", sorted(update_profile.FEEDBACK_EVENTS - {"Unsubscribed"}))
@pytest.mark.parametrize(
    "properties",
    [
        {"message_id": "carts-9-9-decide-0", "campaign": "hello"},
        {},
        {"message_id": 7},
        {"message_id": None},
        {"message_id": ["x"]},
        {"message_id": {"a": 1}},
        {"message_id": "x" * 100_000},
        {"message_id": ""},
        {"campaign": "hello", "channel": "email", "hard": True, "reason": "x"},
    ],
)
def test_feedback_on_unknown_messages_is_ignored(event: str, properties: dict[str, Any]) -> None:
    ann = FeedbackHarness()
    ann.write_message()
    before = codec.decode(codec.encode(ann.person))
    assert ann.emit(event, **properties) == []
    assert merged_profile(ann.person).lifetime_counts[event].count == 1
    for part in ("exposures", "messages", "pending_sends", "suppressed_addresses", "decisions", "session", "timers"):
        assert getattr(ann.person, part) == getattr(before, part), part
    assert ann.person.own_fragment().consent == {}


def test_feedback_opens_no_session() -> None:
    ann = FeedbackHarness()
    message = ann.write_message()
    for event in sorted(update_profile.FEEDBACK_EVENTS):
        ann.emit(event, message)
    assert ann.person.session is None


@pytest.mark.parametrize("reason", ["<b>x</b>", "no channel", "x" * 41, "", "\n", 7, None, "ééé", "__"])
def test_invalid_reason_is_replaced(reason: Any) -> None:
    ann = FeedbackHarness()
    ann.emit("Message Suppressed", ann.write_message(), reason=reason)
    assert ann.person.decisions["hello"].reason == "suppressed"


def test_bot_feedback_does_not_mark_the_person_as_bot() -> None:
    ann = FeedbackHarness()
    ann.person = Person("a:x")
    message = ann.write_message()
    scanner = About(attimo=CollectorContext(bot=True))
    for event in ("Message Opened", "Message Clicked"):
        ann.apply(Track(event=event, properties={"message_id": message.id}, context=scanner))
    assert (ann.states, ann.person.bot, ann.person.fragments) == (["sent"], False, {}), "a mail scanner is nobody"
    ann.apply(Track(event="Message Delivered", properties={"message_id": message.id}, context=scanner))
    assert (ann.states, ann.person.bot) == (["delivered"], False)


def test_image_proxy_does_not_mark_the_person_as_bot() -> None:
    ann = FeedbackHarness()
    ann.person = Person("a:x")
    for event in (Page(), Track(event="Opened In Mail")):
        ann.apply(msgspec.structs.replace(event, context=About(attimo=CollectorContext(bot=True, tracking_image=True))))
    assert (ann.person.bot, ann.person.fragments, ann.person.session) == (False, {}, None)
    ann.apply(Page(context=About(attimo=CollectorContext(bot=True))))
    assert ann.person.bot


# -- no ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("campaign", "properties", "refused"),
    [
        ("hello", {}, "email:marketing"),
        ("hello", {"channel": "email"}, "email:marketing"),
        ("hello", {"channel": "sms"}, "sms:marketing"),
        ("news", {}, "email:news"),
        ("news", {"purpose": "marketing"}, "email:marketing"),
        ("order", {}, "email:marketing"),
        ("hello", {"channel": "pigeon"}, "email:marketing"),
        ("hello", {"purpose": ["x"]}, "email:marketing"),
        ("hello", {"purpose": "x" * 500}, "email:marketing"),
        ("hello", {"channel": {"a": 1}}, "email:marketing"),
    ],
)
def test_unsubscribe_denies_the_purpose_on_the_channel(campaign: str, properties: dict[str, Any], refused: str) -> None:
    ann = FeedbackHarness()
    ann.emit("Unsubscribed", ann.write_message(campaign), **properties)
    assert {name: answer.value for name, answer in merged_profile(ann.person).consent.items()} == {refused: False}


def test_withdrawals_are_identical_after_a_reload() -> None:
    ann, rested = FeedbackHarness(), FeedbackHarness()
    for one in (ann, rested):
        one.write_message()
    rested.person = codec.decode(codec.encode(rested.person))
    taken_back = [one.apply(Track(event="Consent Updated", properties={"marketing": False})) for one in (ann, rested)]
    assert action.encode_message(taken_back[0]) == action.encode_message(taken_back[1]) != b"[]"


@pytest.mark.parametrize(
    ("properties", "refused"),
    [
        ({}, "marketing"),
        ({"channel": "sms"}, "sms:marketing"),
        ({"purpose": "news"}, "news"),
        ({"message_id": "not ours", "channel": "email", "purpose": "news"}, "email:news"),
    ],
)
def test_unsubscribe_without_a_message_counts(properties: dict[str, Any], refused: str) -> None:
    ann = FeedbackHarness()
    ann.emit("Unsubscribed", **properties)
    assert {name: answer.value for name, answer in merged_profile(ann.person).consent.items()} == {refused: False}


def test_latest_consent_wins_over_late_unsubscribe() -> None:
    ann = FeedbackHarness()
    ann.emit("Unsubscribed", channel="email")
    ann.emit("Consent Updated", after=10_000, **{"email:marketing": True})
    ann.apply(Track(event="Unsubscribed", properties={"channel": "email"}), late=5_000)
    assert merged_profile(ann.person).consent["email:marketing"].value is True


def test_newest_consent_denials_are_kept() -> None:
    ann = FeedbackHarness()
    for n in range(MAX_CONSENT + 5):
        ann.emit("Unsubscribed", purpose=f"p{n}")
    assert len(ann.person.own_fragment().consent) == MAX_CONSENT
    assert f"p{MAX_CONSENT + 4}" in ann.person.own_fragment().consent


def test_unsubscribe_withdraws_pending_messages() -> None:
    ann = FeedbackHarness()
    hello, news, sms, gone, order = (ann.write_message(name) for name in ("hello", "news", "text", "hello", "order"))
    ann.emit("Message Delivered", gone)
    back = ann.emit("Unsubscribed", hello)
    assert [(one.withdrawn_id, one.because.reason, one.person) for one in back] == [(hello.id, "consent", "u:ann")]
    assert ann.states == ["suppressed", "sent", "sent", "delivered", "sent"]
    assert {one.action_id for one in ann.person.pending_sends} == {news.id, sms.id, order.id}
    assert [one.withdrawn_id for one in ann.emit("Unsubscribed")] == [sms.id], "marketing, wherever"
    assert [one.withdrawn_id for one in ann.emit("Consent Updated", news=False)] == [news.id]
    assert ann.emit("Unsubscribed", purpose="service") == [], "a word about an order needs no consent"
    assert [one.action_id for one in ann.person.pending_sends] == [order.id]


# -- moving along -----------------------------------------------------------------------------------------------------


def test_messages_move_along_on_login() -> None:
    ann = FeedbackHarness()
    ann.write_message()
    other = FeedbackHarness()
    other.person = Person("a:x", fragments={"a:x": ProfileFragment(traits={"email": Trait(1, "x@x.example")})})
    other.event_count = 50
    message = other.write_message()
    suppress_address(other.person, "sms", hash_address("+1"), 9)
    merge_into(ann.person, build_merge_response(other.person), ann.now)
    assert other.person.messages == []
    assert other.person.suppressed_addresses == {}
    assert [one.message_id for one in ann.person.messages] == ["carts-0-2-decide-0", message.id]
    assert len(ann.person.suppressed_addresses) == 1
    ann.emit("Message Delivered", message)
    assert ann.states == ["sent", "delivered"]


sent_messages = st.lists(
    st.builds(
        SentMessage,
        st.sampled_from("abcdef"),
        st.just("hello"),
        st.just("email"),
        st.integers(0, 9),
        st.sampled_from(sorted(messages.STATUS_RANK)),
    ),
    max_size=6,
    unique_by=lambda one: one.message_id,
)


@given(sent_messages, sent_messages, sent_messages)
def test_message_merge_is_commutative_and_associative(
    one: list[SentMessage], two: list[SentMessage], three: list[SentMessage]
) -> None:
    joined = messages.merge
    assert joined(one, two) == joined(two, one)
    assert joined(joined(one, two), three) == joined(one, joined(two, three))
    assert joined(joined(one, two), two) == joined(one, two)


def test_only_the_newest_messages_are_kept() -> None:
    ann = FeedbackHarness()
    first = ann.write_message()
    for _ in range(MAX_MESSAGES):
        ann.write_message()
    assert len(ann.person.messages) == MAX_MESSAGES
    assert messages.find_message(ann.person, first.id) is None
    many = [SentMessage(f"m{n}", "c", "email", n) for n in range(MAX_MESSAGES + 9)]
    assert messages.merge(many[:30], many[20:]) == many[9:]
