"""Doorbells wake, and nothing depends on them."""

from pathlib import Path

from connectors.log.sqlite_wakeup import Notifier, WakeupSocket, wakeup_folder


def test_notification_reaches_only_subscribed_streams(tmp_path: Path) -> None:
    folder = wakeup_folder(tmp_path)
    public, both = WakeupSocket(folder, ["clicks"]), WakeupSocket(folder, ["clicks", "actions"])
    ringer = Notifier(folder)
    ringer.notify(["actions"])
    assert both.wait(30)
    assert not public.wait(0)
    ringer.notify(["clicks"])
    ringer.notify(["clicks"])
    assert public.wait(30)
    assert not public.wait(0), "all rings are heard at once"
    for each in (public, both, ringer):
        each.close()
    assert list(folder.iterdir()) == []


def test_socket_created_later_is_found(tmp_path: Path) -> None:
    folder = wakeup_folder(tmp_path)
    ringer = Notifier(folder)
    ringer.notify(["clicks"])
    bell = WakeupSocket(folder, ["clicks"])
    rang = False
    while not rang:  # the writer looks for new bells every now and then
        ringer.notify(["clicks"])
        rang = bell.wait(0.01)
    bell.close()
    ringer.close()


def test_socket_of_a_dead_reader_is_removed(tmp_path: Path) -> None:
    folder = wakeup_folder(tmp_path)
    dead = WakeupSocket(folder, ["clicks"])
    dead._socket.close()  # as after kill -9
    assert dead.path.exists()
    ringer = Notifier(folder)
    ringer.notify(["clicks"])
    assert not dead.path.exists()
    ringer.close()


def test_thousands_of_notifications_do_not_block(tmp_path: Path) -> None:
    folder = wakeup_folder(tmp_path)
    bell, ringer = WakeupSocket(folder, ["clicks"]), Notifier(folder)
    for _ in range(5000):
        ringer.notify(["clicks"])
    assert bell.wait(30)
    bell.close()
    ringer.close()


def test_missing_folder_is_ignored(tmp_path: Path) -> None:
    ringer = Notifier(tmp_path / "gone")
    ringer.notify(["clicks"])
    ringer.close()


def test_long_path_uses_a_short_folder(tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 40)
    folder = wakeup_folder(deep)
    bell = WakeupSocket(folder, ["clicks", "actions", "models"])
    assert folder == wakeup_folder(deep)
    assert folder.stat().st_mode & 0o077 == 0
    bell.close()
    folder.rmdir()
