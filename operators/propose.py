"""propose: of the campaigns whose occasion has come, which are decided now.

Few: all of them, so that of each it is known why it was held. Of more than ten at one moment only those that could be
said: nothing blocks them, and their place is free; three for each place by rank (the next one speaks where the first is
held out or has no words), ten for each channel. If there is none, the first one says why.
"""

from collections.abc import Iterable, Iterator
from itertools import chain, islice

from state.context import Context
from state.later import put_off
from state.limits import Proposal, blocked
from state.person import Facts, Person
from state.rules import SERVICE, CampaignRule

FEW = 10
A_PLACE, A_CHANNEL = 3, 10


def propose(person: Person, facts: Facts, rules: Iterator[CampaignRule], context: Context) -> None:
    """Propose them, or put them off by their delay. `rules` come by rank, and are asked for as they are wanted.

    >>> import msgspec
    >>> from domain.playbook import Playbook
    >>> from state.rules import compile_rules
    >>> hello = {"name": "hello", "format": "bar", "trigger": {"event": "Quiz Finished"},
    ...          "content": {"default": {"title": "Hello"}}}
    >>> context = Context(0, compile_rules(msgspec.convert({"campaigns": [hello]}, Playbook)))
    >>> propose(Person(id="a:ann"), Facts(), iter(context.rules.ranked), context)
    >>> [proposal.rule.name for proposal in context.proposals]
    ['hello']
    """
    if context.rules.delays:
        rules = _without_delayed(person, rules, context)
    some = list(islice(rules, FEW + 1))
    if len(some) > FEW:
        some = _speakable(person, facts, chain(some, rules), context) or some[:1]
    context.proposals += [Proposal(rule) for rule in some]


def _without_delayed(person: Person, rules: Iterator[CampaignRule], context: Context) -> Iterator[CampaignRule]:
    now: list[CampaignRule] = []
    for rule in rules:
        if rule.delay:
            put_off(person, rule, context.now + rule.delay, rule.occasion)
        else:
            now.append(rule)
    return iter(now)


def _speakable(person: Person, facts: Facts, rules: Iterable[CampaignRule], context: Context) -> list[CampaignRule]:
    playbook, now = context.rules, context.now
    found: list[CampaignRule] = []
    room = {place: A_PLACE if on_site else A_CHANNEL for place, on_site in playbook.places.items()}
    for waiting in person.reserved:
        other = playbook.campaigns.get(waiting.campaign)
        if other is not None and other.on_site and other.format != "slot":
            room.pop(other.place, None)
    full = False
    for rule in rules:
        place = rule.place
        if place not in room or (full and rule.on_site and rule.purpose != SERVICE and rule.format != "slot"):
            continue
        reason = blocked(person, facts, rule, playbook, now)[0]
        if not reason:
            found.append(rule)
            room[place] -= 1
            if not room[place]:
                del room[place]
        elif reason == "cooldown":  # that goes for the place
            del room[place]
        elif reason == "shop_limit":  # that goes for all places, but not for what people asked for themselves
            full = full or rule.on_site
        if not room or (full and not playbook.exempt):
            break
    return found
