"""Doorbells wake, and nothing depends on them."""

from pathlib import Path

from connectors.bell import Bell, Ringer, folder_of


def test_a_bell_rings_for_its_streams_only(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    public, both = Bell(folder, ["clicks"]), Bell(folder, ["clicks", "actions"])
    ringer = Ringer(folder)
    ringer.ring(["actions"])
    assert both.wait(30)
    assert not public.wait(0)
    ringer.ring(["clicks"])
    ringer.ring(["clicks"])
    assert public.wait(30)
    assert not public.wait(0), "all rings are heard at once"
    for each in (public, both, ringer):
        each.close()
    assert list(folder.iterdir()) == []


def test_a_bell_that_is_hung_later_is_found(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    ringer = Ringer(folder)
    ringer.ring(["clicks"])
    bell = Bell(folder, ["clicks"])
    rang = False
    while not rang:  # the writer looks for new bells every now and then
        ringer.ring(["clicks"])
        rang = bell.wait(0.01)
    bell.close()
    ringer.close()


def test_the_bell_of_a_dead_reader_is_taken_down(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    dead = Bell(folder, ["clicks"])
    dead._socket.close()  # as after kill -9
    assert dead.path.exists()
    ringer = Ringer(folder)
    ringer.ring(["clicks"])
    assert not dead.path.exists()
    ringer.close()


def test_thousands_of_rings_block_nobody(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    bell, ringer = Bell(folder, ["clicks"]), Ringer(folder)
    for _ in range(5000):
        ringer.ring(["clicks"])
    assert bell.wait(30)
    bell.close()
    ringer.close()


def test_a_folder_that_is_gone_is_no_trouble(tmp_path: Path) -> None:
    ringer = Ringer(tmp_path / "gone")
    ringer.ring(["clicks"])
    ringer.close()


def test_a_long_path_gets_a_short_folder(tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 40)
    folder = folder_of(deep)
    bell = Bell(folder, ["clicks", "actions", "models"])
    assert folder == folder_of(deep)
    assert folder.stat().st_mode & 0o077 == 0
    bell.close()
    folder.rmdir()
