"""What is written to a person, and what the world says of it: only what is ours changes anything, each state once."""

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import message as messages
from domain.action import Content
from domain.event import Context as About
from domain.event import Event, Identify, Page, Seen, Track
from domain.message import Message
from operators import fold_profile
from operators.write_message import MAX_CONTEXT, bounded, write
from state import codec, feedback
from state.addresses import MAX_UNREACHABLE, address_of, addresses, give_up, mark, reachable, why_not
from state.context import Context
from state.experiments import Side
from state.merge import absorb, hand_over
from state.person import MAX_CONSENT, MAX_WRITTEN, Facts, Person, Reserved, Trait, Written
from state.rules import compile_rules
from state.view import known
from tests.visitor import T0, playbook

HOUR = 3_600_000
OCCASION = {"trigger": {"event": "Product Added"}}
CAMPAIGNS = {
    "hello": {"format": "email", **OCCASION, "content": {"default": {"title": "{{ first_name }}"}}},
    "text": {"format": "sms", **OCCASION},
    "order": {"format": "email", "purpose": "service", **OCCASION},
    "news": {"format": "email", "purpose": "news", "valid_for": "2h", **OCCASION,
             "variants": {"a": {}, "b": {"content": {"default": {"title": "B"}}}}},
}
HOSTILE = [
    "ann@x.example\r\nBcc: all@x.example", "ann@x.example\nX: y", "ann@x.example, bob@x.example", "<ann@x.example>",
    '"ann"@x.example', "ann@x.example\0", "ann x@x.example", "-oQ/tmp@x.example", "ann@x.example;rm", "@x.example",
    "ann@", "ann", "ann@@x.example", "ann@x", "ann@-x.example", "ann@x..example", ".ann@x.example", "a..n@x.example",
    "ann.@x.example", "ann@x.example\u2028", "ann@x.example\u202e", "a" * 65 + "@x.example", "a@" + "x" * 300 + ".it",
    "a@" + "x" * 64 + ".it", "`id`@x.example", "$(id)@x.example", "a|b@x.example", "a@x.example%0d", "a\\@x.example",
    "a@[127.0.0.1]", "a@127.0.0.1", "",
]
FINE = ["ann@x.example", "Ann.O'Neil+tag@mail.x.example", "ä.ö@müller.example", "a_b-c=d@xn--mller-kva.example",
        "a@x.xn--p1ai", "1@2.example", "a@" + "x" * 63 + ".it"]


class Ann:
    """A known person, and events that come to her."""

    def __init__(self, **traits: Any) -> None:
        self.person, self.now, self.n = Person("u:ann"), T0, 0
        self.context = Context(0, compile_rules(playbook(campaigns=CAMPAIGNS)))
        self.told(Identify(traits={"email": "ann@x.example", "phone": "+39333123456", "first_name": "Ann", **traits}))

    def told(self, event: Event, after: int = 1_000, late: int = 0) -> list[Any]:
        self.n += 1
        self.now += after
        event = msgspec.structs.replace(event, message_id=f"m{self.n}", user_id="ann")
        self.context.begin(f"people-0-{self.n}", self.now, self.now - late)
        return list(fold_profile.step(self.person, event, self.context))

    def says(self, event: str, message: Message | None = None, /, after: int = 1_000, **properties: Any) -> list[Any]:
        if message is not None:
            properties["message_id"] = message.id
        return self.told(Track(event=event, properties=properties), after)

    def gets(self, campaign: str = "hello", variant: str = "") -> Message:
        """The campaign was decided, as respect_limits does it."""
        self.n += 1
        self.context.begin(f"carts-0-{self.n}", self.now, self.now)
        message = write(self.person, known(self.person), self.context.rules.campaigns[campaign], Side(variant, 0.5, ""),
                        Content(title="Hello"), self.context)
        self.person.reserved.append(Reserved(message.id, campaign, message.not_after))
        self.person.timers["reserved:" + message.id] = message.not_after
        return message

    @property
    def states(self) -> list[str]:
        return [written.state for written in self.person.written]

    def total(self, campaign: str = "hello") -> int:
        said = self.person.said.get(campaign)
        return said.total if said is not None else 0


# -- the message ------------------------------------------------------------------------------------------------------


def test_a_message_has_everything_a_worker_needs() -> None:
    ann = Ann()
    facts = ann.person.own()
    facts.locale, facts.timezone = "it-IT", "Europe/Rome"
    message = ann.gets()
    assert (message.id, message.person, message.channel, message.campaign) == (
        "carts-0-2-respect_limits-0", "u:ann", "email", "hello")
    assert message.addresses == {"email": "ann@x.example", "phone": "+39333123456"}
    assert message.consent == {"marketing": "default", "email:marketing": "default"}
    assert message.context["first_name"] == "Ann"
    assert (message.language, message.timezone) == ("it-IT", "Europe/Rome")
    assert (message.not_before, message.not_after) == (ann.now, ann.now + 24 * HOUR)
    assert message.because.trigger == 'event "Product Added"'
    assert ann.gets("news").not_after == ann.now + 2 * HOUR, "valid_for"
    assert [one.message_id for one in ann.person.written] == [message.id, "carts-0-3-respect_limits-0"]


def test_the_content_key_is_of_the_words_and_not_of_the_person() -> None:
    one, other = Ann(), Ann(first_name="Bob")
    assert one.gets().content_key == other.gets().content_key
    keys = {one.gets("news", side).content_key for side in ("", "a", "b")}
    assert {key.rpartition("/")[0] for key in keys} == {"news/default", "news/a", "news/b"}
    changed = Ann()
    changed.context.rules = compile_rules(playbook(campaigns={
        **CAMPAIGNS, "hello": {**CAMPAIGNS["hello"], "content": {"default": {"title": "Hi {{ first_name }}"}}}}))
    assert changed.gets().content_key != one.gets().content_key


def test_consent_is_said_as_it_was_answered() -> None:
    ann = Ann()
    ann.says("Consent Updated", marketing=True, **{"email:marketing": False})
    assert ann.gets().consent == {"marketing": "granted", "email:marketing": "denied"}


@given(st.recursive(st.none() | st.integers() | st.text() | st.floats(allow_nan=False), lambda inner: st.lists(
    inner, max_size=40) | st.dictionaries(st.text(), inner, max_size=5), max_leaves=60))
def test_the_values_are_bounded(value: Any) -> None:
    found = bounded({"a": value, "b": "x" * 5_000, "c": "y" * 5_000})
    assert len(msgspec.json.encode(found)) <= MAX_CONTEXT + 10
    assert "b" in found or "c" in found or len(msgspec.json.encode(value)) > 2_000


# -- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_no_address_is_none(text: str) -> None:
    facts = Facts(traits={"email": Trait(1, text)})
    assert reachable(Person("u:ann"), facts, "email") == ""
    assert why_not(Person("u:ann"), facts, "email")[0] == "no_address"


@pytest.mark.parametrize("text", FINE)
def test_what_is_one_is_one(text: str) -> None:
    assert reachable(Person("u:ann"), Facts(traits={"email": Trait(1, text)}), "email") == text


@given(st.text(max_size=300))
def test_no_address_ever_has_a_line_break_a_space_or_two_recipients(text: str) -> None:
    for name, channel in (("email", "email"), ("phone", "sms"), ("push_token", "push"), ("chat_id", "chat")):
        found = reachable(Person("u:ann"), Facts(traits={name: Trait(1, text)}), channel)
        assert found.isprintable()
        assert not set(found) & set(" ,;<>\"'\\\r\n") - set("'")
        assert not found.startswith("-")


@pytest.mark.parametrize(("trait", "channel", "value", "expected"), [
    ("phone", "sms", "+39 333 123 4567", "+393331234567"), ("phone", "sms", 393331234567, "393331234567"),
    ("phone", "sms", True, ""), ("phone", "sms", 3.5, ""), ("phone", "sms", None, ""), ("phone", "sms", "12345", ""),
    ("phone", "sms", "+39333123456\n", ""), ("phone", "sms", "٣٣٣١٢٣٤٥٦", ""), ("phone", "sms", "1" * 16, ""),
    ("push_token", "push", "x" * 256, ""), ("push_token", "push", "a" * 64, "a" * 64),
    ("chat_id", "chat", 4711, "4711"), ("chat_id", "chat", "@ann", "@ann"), ("chat_id", "chat", "-1", ""),
])
def test_other_addresses(trait: str, channel: str, value: Any, expected: str) -> None:
    assert reachable(Person("u:ann"), Facts(traits={trait: Trait(1, value)}), channel) == expected


def test_file_and_webhook_need_no_address() -> None:
    assert reachable(Person("a:x"), Facts(), "file") == reachable(Person("a:x"), Facts(), "webhook") == "a:x"
    assert reachable(Person("a:x"), Facts(), "pigeon") == ""
    assert addresses(Person("a:x"), Facts()) == {}


def test_a_hard_bounce_gives_up_the_address_and_not_the_person() -> None:
    ann = Ann()
    ann.says("Message Bounced", ann.gets(), type="hard", reason="550 no\r\nsuch user")
    facts = known(ann.person)
    assert reachable(ann.person, facts, "email") == ""
    assert why_not(ann.person, facts, "email")[0] == "unreachable"
    assert address_of(facts, "email") == "ann@x.example"
    assert addresses(ann.person, facts) == {"phone": "+39333123456"}
    decision = ann.person.decisions["hello"]
    assert (decision.kind, decision.reason, decision.detail) == ("hold", "bounced", "550 no such user")
    ann.told(Identify(traits={"email": "ann@x.example"}))
    assert reachable(ann.person, known(ann.person), "email") == "", "the same address, said once more, is no new one"
    ann.told(Identify(traits={"email": "ann@new.example"}))
    assert reachable(ann.person, known(ann.person), "email") == "ann@new.example"


def test_a_bounce_of_an_old_address_says_nothing_about_the_new_one() -> None:
    ann = Ann()
    old = ann.gets()
    ann.told(Identify(traits={"email": "ann@new.example"}))
    ann.says("Message Bounced", old, hard=True)
    assert reachable(ann.person, known(ann.person), "email") == "ann@new.example"


@pytest.mark.parametrize("properties", [{}, {"type": "soft"}, {"hard": "yes"}, {"type": ["hard"]}, {"hard": 1}])
def test_a_soft_bounce_gives_up_nothing(properties: dict[str, Any]) -> None:
    ann = Ann()
    ann.says("Message Bounced", ann.gets(), **properties)
    assert ann.states == ["bounced"]
    assert reachable(ann.person, known(ann.person), "email") == "ann@x.example"


def test_addresses_that_were_given_up_are_bounded() -> None:
    person = Person("u:ann")
    for n in range(50):
        give_up(person, "email", mark(f"a{n}@x.example"), n)
    assert len(person.unreachable) == MAX_UNREACHABLE
    assert min(person.unreachable.values()) == 50 - MAX_UNREACHABLE


# -- what comes back --------------------------------------------------------------------------------------------------


def test_delivered_counts_once_as_shown() -> None:
    ann = Ann()
    message = ann.gets()
    for _ in range(3):
        ann.says("Message Delivered", message, campaign="other", channel="sms")
    assert (ann.total(), ann.states, ann.person.reserved) == (1, ["delivered"], [])
    assert "reserved:" + message.id not in ann.person.timers
    assert ann.person.decisions["hello"].kind == "shown"
    assert known(ann.person).counts["Message Delivered"].n == 3, "each is counted as an event all the same"


@pytest.mark.parametrize("order", list(itertools.permutations(
    ["Message Delivered", "Message Opened", "Message Clicked"])))
def test_the_order_of_what_is_told_changes_nothing(order: tuple[str, ...]) -> None:
    ann = Ann()
    message = ann.gets()
    for event in (*order, *order):
        ann.says(event, message)
    assert (ann.total(), ann.states, ann.person.reserved) == (1, ["clicked"], [])


def test_held_gives_the_place_back_and_says_why() -> None:
    ann = Ann()
    message = ann.gets()
    ann.says("Message Held", message, reason="no_channel", detail="nobody sends\nemail")
    assert (ann.total(), ann.states, ann.person.reserved) == (0, ["held"], [])
    decision = ann.person.decisions["hello"]
    assert (decision.kind, decision.reason, decision.detail) == ("hold", "no_channel", "nobody sends email")
    ann.says("Message Delivered", message)
    assert (ann.total(), ann.states) == (1, ["delivered"]), "the truth wins"
    ann.says("Message Held", message, reason="stale")
    assert (ann.total(), ann.states) == (1, ["delivered"])


@pytest.mark.parametrize("event", sorted(fold_profile.FEEDBACK - {"Unsubscribed"}))
@pytest.mark.parametrize("properties", [
    {"message_id": "carts-9-9-respect_limits-0", "campaign": "hello"}, {}, {"message_id": 7}, {"message_id": None},
    {"message_id": ["x"]}, {"message_id": {"a": 1}}, {"message_id": "x" * 100_000}, {"message_id": ""},
    {"campaign": "hello", "channel": "email", "hard": True, "reason": "x"},
])
def test_what_is_not_ours_is_counted_and_changes_nothing(event: str, properties: dict[str, Any]) -> None:
    ann = Ann()
    ann.gets()
    before = codec.decode(codec.encode(ann.person))
    assert ann.says(event, **properties) == []
    assert known(ann.person).counts[event].n == 1
    for part in ("said", "written", "reserved", "unreachable", "decisions", "session", "timers"):
        assert getattr(ann.person, part) == getattr(before, part), part
    assert ann.person.own().consent == {}


def test_feedback_opens_no_visit() -> None:
    ann = Ann()
    message = ann.gets()
    for event in sorted(fold_profile.FEEDBACK):
        ann.says(event, message)
    assert ann.person.session is None


@pytest.mark.parametrize("reason", ["<b>x</b>", "no channel", "x" * 41, "", "\n", 7, None, "ééé", "__"])
def test_a_reason_is_one_plain_word(reason: Any) -> None:
    ann = Ann()
    ann.says("Message Held", ann.gets(), reason=reason)
    assert ann.person.decisions["hello"].reason == "held"


def test_a_robot_that_reports_makes_no_robot_of_the_person() -> None:
    ann = Ann()
    ann.person = Person("a:x")
    message = ann.gets()
    scanner = About(attimo=Seen(bot=True))
    for event in ("Message Opened", "Message Clicked"):
        ann.told(Track(event=event, properties={"message_id": message.id}, context=scanner))
    assert (ann.states, ann.person.bot, ann.person.facets) == (["sent"], False, {}), "a mail scanner is nobody"
    ann.told(Track(event="Message Delivered", properties={"message_id": message.id}, context=scanner))
    assert (ann.states, ann.person.bot) == (["delivered"], False)


def test_a_robot_that_loads_an_image_makes_no_robot_of_the_person() -> None:
    ann = Ann()
    ann.person = Person("a:x")
    for event in (Page(), Track(event="Opened In Mail")):
        ann.told(msgspec.structs.replace(event, context=About(attimo=Seen(bot=True, image=True))))
    assert (ann.person.bot, ann.person.facets, ann.person.session) == (False, {}, None)
    ann.told(Page(context=About(attimo=Seen(bot=True))))
    assert ann.person.bot


# -- no ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("campaign", "properties", "refused"), [
    ("hello", {}, "email:marketing"), ("hello", {"channel": "email"}, "email:marketing"),
    ("hello", {"channel": "sms"}, "sms:marketing"), ("news", {}, "email:news"),
    ("news", {"purpose": "marketing"}, "email:marketing"), ("order", {}, "email:marketing"),
    ("hello", {"channel": "pigeon"}, "email:marketing"), ("hello", {"purpose": ["x"]}, "email:marketing"),
    ("hello", {"purpose": "x" * 500}, "email:marketing"), ("hello", {"channel": {"a": 1}}, "email:marketing"),
])
def test_no_is_a_no_to_the_purpose_on_the_channel(campaign: str, properties: dict[str, Any], refused: str) -> None:
    ann = Ann()
    ann.says("Unsubscribed", ann.gets(campaign), **properties)
    assert {name: answer.value for name, answer in known(ann.person).consent.items()} == {refused: False}


def test_what_is_taken_back_is_so_in_the_same_bytes_after_a_rest() -> None:
    ann, rested = Ann(), Ann()
    for one in (ann, rested):
        one.gets()
    rested.person = codec.decode(codec.encode(rested.person))
    taken_back = [one.told(Track(event="Consent Updated", properties={"marketing": False})) for one in (ann, rested)]
    assert messages.encode(taken_back[0]) == messages.encode(taken_back[1]) != b"[]"


@pytest.mark.parametrize(("properties", "refused"), [
    ({}, "marketing"), ({"channel": "sms"}, "sms:marketing"), ({"purpose": "news"}, "news"),
    ({"message_id": "not ours", "channel": "email", "purpose": "news"}, "email:news"),
])
def test_a_no_without_a_message_is_heard_too(properties: dict[str, Any], refused: str) -> None:
    ann = Ann()
    ann.says("Unsubscribed", **properties)
    assert {name: answer.value for name, answer in known(ann.person).consent.items()} == {refused: False}


def test_a_yes_after_the_no_counts_and_a_late_no_does_not_undo_it() -> None:
    ann = Ann()
    ann.says("Unsubscribed", channel="email")
    ann.says("Consent Updated", after=10_000, **{"email:marketing": True})
    ann.told(Track(event="Unsubscribed", properties={"channel": "email"}), late=5_000)
    assert known(ann.person).consent["email:marketing"].value is True


def test_a_no_is_kept_when_many_purposes_were_answered() -> None:
    ann = Ann()
    for n in range(MAX_CONSENT + 5):
        ann.says("Unsubscribed", purpose=f"p{n}")
    assert len(ann.person.own().consent) == MAX_CONSENT
    assert f"p{MAX_CONSENT + 4}" in ann.person.own().consent


def test_what_is_on_its_way_and_not_wanted_is_taken_back() -> None:
    ann = Ann()
    hello, news, sms, gone, order = (ann.gets(name) for name in ("hello", "news", "text", "hello", "order"))
    ann.says("Message Delivered", gone)
    back = ann.says("Unsubscribed", hello)
    assert [(one.withdraws, one.because.reason, one.person) for one in back] == [(hello.id, "consent", "u:ann")]
    assert ann.states == ["held", "sent", "sent", "delivered", "sent"]
    assert {one.action_id for one in ann.person.reserved} == {news.id, sms.id, order.id}
    assert [one.withdraws for one in ann.says("Unsubscribed")] == [sms.id], "marketing, wherever"
    assert [one.withdraws for one in ann.says("Consent Updated", news=False)] == [news.id]
    assert ann.says("Unsubscribed", purpose="service") == [], "a word about an order needs no consent"
    assert [one.action_id for one in ann.person.reserved] == [order.id]


# -- moving along -----------------------------------------------------------------------------------------------------


def test_what_was_written_moves_along_on_login() -> None:
    ann = Ann()
    ann.gets()
    other = Ann()
    other.person = Person("a:x", facets={"a:x": Facts(traits={"email": Trait(1, "x@x.example")})})
    other.n = 50
    message = other.gets()
    give_up(other.person, "sms", mark("+1"), 9)
    absorb(ann.person, hand_over(other.person), ann.now)
    assert other.person.written == []
    assert other.person.unreachable == {}
    assert [one.message_id for one in ann.person.written] == ["carts-0-2-respect_limits-0", message.id]
    assert len(ann.person.unreachable) == 1
    ann.says("Message Delivered", message)
    assert ann.states == ["sent", "delivered"]


some_written = st.lists(st.builds(
    Written, st.sampled_from("abcdef"), st.just("hello"), st.just("email"), st.integers(0, 9),
    st.sampled_from(sorted(feedback.RANK))), max_size=6, unique_by=lambda one: one.message_id)


@given(some_written, some_written, some_written)
def test_joining_what_was_written_follows_the_laws(
    one: list[Written], two: list[Written], three: list[Written],
) -> None:
    joined = feedback.joined
    assert joined(one, two) == joined(two, one)
    assert joined(joined(one, two), three) == joined(one, joined(two, three))
    assert joined(joined(one, two), two) == joined(one, two)


def test_only_the_newest_messages_are_remembered() -> None:
    ann = Ann()
    first = ann.gets()
    for _ in range(MAX_WRITTEN):
        ann.gets()
    assert len(ann.person.written) == MAX_WRITTEN
    assert feedback.find(ann.person, first.id) is None
    many = [Written(f"m{n}", "c", "email", n) for n in range(MAX_WRITTEN + 9)]
    assert feedback.joined(many[:30], many[20:]) == many[9:]
