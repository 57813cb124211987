"""What the owners of parents tell of their caps, whatever partitions parents and children are on."""

from rollupslog import START, USD, Deployment, Teams, engine, tree
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.engine.caps import near, parent_caps

TREE = tree(("acme", "organization", None, 100), ("bg-1", "billing_group", "acme", None))


def test_a_parent_s_cap_is_told_with_what_its_children_have_spent() -> None:
    at, teams = Deployment(engine(TREE, partitions=5)), Teams()
    for i in range(95):
        now = START + i
        teams.spend("a", now, USD)
        at.put(*teams.tell("bg-1", now, "a"))
        at.tick(now + 0.9)
    told = {
        cap.node: (cap, number)
        for number in range(5)
        for _, cap in parent_caps(at.state(number), at.of.book.at(at.state(number).now))
    }
    assert set(told) == {"acme"}, "a node without an allocation has no cap to tell"
    cap, number = told["acme"]
    assert number == cap.partition == partition_of(b"acme", 5)
    assert (cap.params["cap"], cap.params["spent"], cap.params["next"]) == (100 * USD, 95 * USD, 100 * USD)
    assert near(cap)
    assert cap.params["ends_at"] > cap.time == at.state(number).now
    assert [each.node for _, each in parent_caps(at.state(number), at.of.book.at(now), ["acme"])] == ["acme"]
    assert list(parent_caps(at.state(number), at.of.book.at(now), ["gone"])) == []
