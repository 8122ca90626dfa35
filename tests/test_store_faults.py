"""What disks and people do to the files of the state directory, and what is left of them then."""

import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leekfanout.errors import StoreError
from leekfanout.stores import sqlite_store
from leekfanout.stores.deadletters import DeadLetter, DeadLetters, LetterFilter
from leekfanout.stores.spool import Spool
from tests.stores import MEMORY_FOLDER, stores_are_closed  # noqa: F401

pytestmark = pytest.mark.usefixtures("stores_are_closed")

MB = 1_000_000
LETTER = DeadLetter("event", "it has no uuid", None, b"x" * 3_000, 0.0)

Damage = Callable[[Path], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop-prod" / "store.sqlite3"


def _garbage(path: Path) -> None:
    path.write_bytes(os.urandom(20_000))


def _garbage_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"this is no database at all")


def _cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _cut_after_the_header(path: Path) -> None:
    os.truncate(path, 100)


def _all_pages_but_the_first(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4_096)
        file.write(os.urandom(size - 4_096))


def _somebody_elses_database(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE letters (something INTEGER)")
    connection.close()


DAMAGES: list[Damage] = [
    _garbage, _garbage_header, _cut_in_half, _cut_after_the_header, _all_pages_but_the_first,
    _somebody_elses_database,
]  # fmt: skip


def set_aside(path: Path) -> list[Path]:
    return [
        file
        for file in path.parent.glob(f"{path.name}.damaged-*")
        if not file.name.endswith("-wal")
    ]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_dead_letter_file_is_set_aside_and_a_new_one_begun(
    path: Path, damage: Damage
) -> None:
    letters = DeadLetters(path, "shop-prod", MB)
    letters.put([LETTER] * 50)
    letters.close()
    damage(path)
    damaged = path.read_bytes()

    letters.put([LETTER])
    assert letters.count() == 1
    [aside] = set_aside(path)
    assert aside.read_bytes() == damaged


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_spool_is_set_aside_and_a_new_one_begun(path: Path, damage: Damage) -> None:
    spool = Spool(path, MB)
    for _ in range(50):
        spool.append(b"x" * 3_000, events=2)
    spool.close()
    damage(path)

    spool = Spool(path, MB)
    spool.after(0, MB)
    spool.append(b"new", events=1)
    assert [entry.body for entry in spool.after(0, MB)] == [b"new"]
    assert len(set_aside(path)) == 1


def test_pages_that_turn_bad_while_the_file_is_open_cost_what_is_not_in_hand(path: Path) -> None:
    spool = Spool(path, 10 * MB)
    for _ in range(200):
        spool.append(b"x" * 30_000, events=2)
    in_hand = spool.after(0, 90_000)
    spool._store.close()  # so that no page of it is cached
    _all_pages_but_the_first(path)

    dropped = spool.append(b"new", events=1)
    assert dropped == 400 - sum(entry.events for entry in in_hand)
    assert [entry.body for entry in spool.after(0, MB)] == [b"new"]
    spool.remove([entry.id for entry in in_hand])
    assert spool.batches == 1, "the ids of the old file mean nothing in the new one"


def _fill(folder: Path) -> None:
    """Fill both kinds of file, with holes in them."""
    letters = DeadLetters(folder / "letters", "shop-prod", 5 * MB)
    letters.put([LETTER._replace(payload=b"%d" % n * (n % 90) * 60) for n in range(150)])
    letters.remove(range(3, 20))
    letters.close()
    spool = Spool(folder / "spool", 5 * MB)
    for number in range(60):
        spool.append(b"%d" % number * (number % 7) * 2_000, events=number + 1)
    spool.remove(range(2, 9))
    spool.close()


@given(
    places=st.lists(
        st.tuples(st.floats(0, 0.999), st.binary(min_size=1, max_size=200)), max_size=20
    ),
    pages=st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 110), st.binary(min_size=1, max_size=8))
    ),
    cut=st.none() | st.floats(0, 1),
    open_then=st.booleans(),
    choice=st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_whatever_the_damage_only_store_errors_come_of_it_and_it_is_got_over(
    places: list[tuple[float, bytes]],
    pages: list[tuple[int, int, bytes]],
    cut: float | None,
    open_then: bool,
    choice: random.Random,
) -> None:
    """Bytes anywhere, bytes in the headers of pages, and a shorter file."""
    with tempfile.TemporaryDirectory(dir=MEMORY_FOLDER) as name:
        folder = Path(name)
        _fill(folder)
        letters = DeadLetters(folder / "letters", "shop-prod", 5 * MB)
        spool = Spool(folder / "spool", 5 * MB)
        if open_then:
            letters.count()
            spool.after(0, 10_000)
        else:
            spool.close()
        for path in (folder / "letters", folder / "spool"):
            size = path.stat().st_size
            with path.open("r+b") as file:
                for where, garbage in places:
                    file.seek(int(where * size))
                    file.write(garbage)
                for page, offset, garbage in pages:
                    if page * 4_096 < size:
                        file.seek(page * 4_096 + offset)
                        file.write(garbage)
                if cut is not None:
                    file.truncate(int(cut * size))
        uses: list[Callable[[], object]] = [
            lambda: letters.put([LETTER]),
            lambda: letters.select(LetterFilter(reason="uuid")),
            lambda: letters.get(choice.randrange(150)),
            lambda: letters.remove([choice.randrange(150) for _ in range(20)]),
            lambda: letters.purge(LetterFilter(kind="event")),
            letters.count,
            letters.size_bytes,
            lambda: spool.append(b"x" * choice.randrange(40_000), 2),
            lambda: [len(entry.body) + entry.events for entry in spool.after(0, 10 * MB)],
            lambda: spool.remove([choice.randrange(60) for _ in range(10)]),
        ]
        for _ in range(15):
            with suppress(StoreError):
                choice.choice(uses)()
        letters.purge()  # what no use has come across, this does
        spool.after(0, 100 * MB)
        letters.put([LETTER._replace(payload=b"the last")])
        spool.append(b"the last", events=1)
        last = letters.select(limit=10_000)[-1].id
        assert letters.get(last) == LETTER._replace(payload=b"the last")
        assert spool.after(0, 100 * MB)[-1].body == b"the last"
        letters.close()
        spool.close()


def test_only_the_last_damaged_file_is_kept(path: Path) -> None:
    for number in range(3):
        letters = DeadLetters(path, "shop-prod", MB)
        letters.put([LETTER])
        letters.close()
        path.write_bytes(b"damaged %d" % number * 1_000)
    DeadLetters(path, "shop-prod", MB).put([LETTER])
    [aside] = set_aside(path)
    assert aside.read_bytes() == b"damaged 2" * 1_000


def test_a_reader_leaves_a_damaged_file_to_its_owner(path: Path) -> None:
    owner = DeadLetters(path, "shop-prod", MB)
    owner.put([LETTER])
    owner.close()
    _garbage(path)
    with pytest.raises(StoreError, match="damaged"):
        DeadLetters(path, "shop-prod", MB, owner=False).select()
    assert set_aside(path) == []


def test_a_reader_makes_no_file(path: Path) -> None:
    with pytest.raises(StoreError, match="doesn't exist"):
        DeadLetters(path, "shop-prod", MB, owner=False).select()
    assert not path.parent.exists()


def test_a_file_of_a_later_version_is_left_alone(path: Path) -> None:
    letters = DeadLetters(path, "shop-prod", MB)
    letters.put([LETTER])
    letters.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="later version"):
        letters.put([LETTER])
    assert set_aside(path) == []


@pytest.mark.parametrize("gone", ["file", "directory", "replaced"])
def test_a_file_deleted_under_the_agent_is_begun_anew(path: Path, gone: str) -> None:
    letters = DeadLetters(path, "shop-prod", MB)
    spool = Spool(path.with_name("spool.sqlite3"), MB)
    letters.put([LETTER])
    spool.append(b"lost", events=5)
    if gone == "directory":
        shutil.rmtree(path.parent)
    else:
        path.unlink()
        spool_path = path.with_name("spool.sqlite3")
        spool_path.unlink()
        if gone == "replaced":
            spool_path.touch()
            path.touch()

    letters.put([LETTER])
    assert letters.count() == 1
    assert DeadLetters(path, "shop-prod", MB, owner=False).count() == 1
    assert spool.append(b"new", events=1) == 5
    assert [entry.body for entry in spool.after(0, MB)] == [b"new"]


def test_a_missing_state_directory_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c" / "deadletters.sqlite3"
    DeadLetters(path, "shop-prod", MB).put([LETTER])
    assert path.exists()


def test_a_path_that_is_no_directory_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    spool = Spool(tmp_path / "state" / "spool.sqlite3", MB)
    letters = DeadLetters(tmp_path / "state" / "deadletters.sqlite3", "shop-prod", MB)
    for use in (lambda: letters.put([LETTER]), lambda: spool.append(b"x", 1), letters.select):
        with pytest.raises(StoreError, match=r"state.*folder"):
            use()
    assert (letters.count(), letters.size_bytes()) == (0, 0)
    spool.remove([1])
    assert (spool.batches, spool.size_bytes) == (0, 0)


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that other users may reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="leekfanout-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Modes of files mean nothing to root: be nobody in here."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_read_only_directory_is_one_error_and_recovers(shared_folder: Path) -> None:
    path = shared_folder / "shop-prod" / "deadletters.sqlite3"
    shared_folder.chmod(0o777)
    with unprivileged():
        letters = DeadLetters(path, "shop-prod", MB)
        letters.put([LETTER])
        letters.close()
        path.parent.chmod(0o500)
        path.chmod(0o400)
        with pytest.raises(StoreError, match=r"owner|writable"):
            letters.put([LETTER])
        path.parent.chmod(0o700)
        path.chmod(0o600)
        letters.put([LETTER])
        assert letters.count() == 2
        letters.close()


def test_a_directory_that_refuses_a_new_file_is_one_error_and_recovers(shared_folder: Path) -> None:
    with unprivileged():
        spool = Spool(shared_folder / "spool.sqlite3", MB)
        with pytest.raises(StoreError, match="writable"):
            spool.append(b"x", events=1)
    shared_folder.chmod(0o777)
    with unprivileged():
        assert spool.append(b"x", events=1) == 0
        assert spool.batches == 1
        spool.close()


@contextmanager
def files_no_larger_than(size_bytes: int) -> Iterator[None]:
    """A disk that takes no more, for this process: write() fails (SIGXFSZ is ignored by Python)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_takes_no_more_is_one_error_and_loses_nothing(path: Path) -> None:
    letters = DeadLetters(path, "shop-prod", MB)
    spool = Spool(path.with_name("spool.sqlite3"), MB)
    letters.put([LETTER] * 3)
    for _ in range(3):
        spool.append(b"kept", events=1)
    in_hand = spool.after(0, 4)
    with files_no_larger_than(60_000):
        for _ in range(3):
            with pytest.raises(StoreError, match="full"):
                letters.put([LETTER._replace(payload=os.urandom(100_000))])
            with pytest.raises(StoreError, match="full"):
                spool.append(os.urandom(100_000), events=1)
        assert letters.count() == 3
    with files_no_larger_than(0):
        spool.remove([entry.id for entry in in_hand])
    letters.put([LETTER])
    assert letters.count() == 4
    assert spool.append(b"new", events=1) == 0
    assert [entry.id for entry in spool.after(0, MB)] == [2, 3, 4], "the removal was made up for"


FULL_DISK = """
import os, sys
from pathlib import Path
from leekfanout.stores.deadletters import DeadLetter, DeadLetters, LetterFilter
from leekfanout.errors import StoreError
from leekfanout.stores.spool import Spool

folder = Path(sys.argv[1])
letters = DeadLetters(folder / "a" / "deadletters.sqlite3", "shop-prod", 100_000_000)
spool = Spool(folder / "a" / "spool.sqlite3", 100_000_000)
small = DeadLetter("event", "bad", None, b"x" * 10_000, 0.0)
kept = spooled = 0
refused = []
for _ in range(500):
    try:
        letters.put([small])
        kept += 1
    except StoreError as error:
        refused.append(str(error))
    try:
        spool.append(b"x" * 10_000, events=1)
        spooled += 1
    except StoreError as error:
        refused.append(str(error))
assert kept and spooled and len(refused) == 1_000 - kept - spooled > 100, (kept, spooled)
assert all("full" in message for message in refused), set(refused)
assert os.statvfs(folder).f_bavail * 4096 < 200_000
assert letters.count() == kept
entries = spool.after(0, 100_000_000)
assert len(entries) == spooled == spool.batches
(folder / "ballast").unlink()
letters.put([small])
spool.append(b"x", events=1)
spool.remove([entry.id for entry in entries])
assert letters.count() == kept + 1
assert spool.batches == 1
print("fine")
"""


def test_a_full_disk_is_one_error_and_recovers(tmp_path: Path) -> None:
    # A mount of its own, seen by this one process tree, which goes when the process ends.
    mount = (
        'mount -t tmpfs -o size=6m tmpfs "$1" && '
        'head -c 3000000 /dev/zero >"$1/ballast" && exec "$2" -c "$3" "$1"'
    )
    unshare = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    finished = subprocess.run(
        [*unshare, "sh", "-c", mount, "sh", tmp_path, sys.executable, FULL_DISK],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert finished.stdout == "fine\n", finished.stderr


def test_a_file_that_another_process_has_locked_is_one_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_store, "BUSY_TIMEOUT_S", 0.05)
    letters = DeadLetters(path, "shop-prod", MB)
    letters.put([LETTER])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        letters.put([LETTER])
    assert letters.count() == 1, "reading needs no lock"
    other.execute("ROLLBACK")
    other.close()
    letters.put([LETTER])
    assert letters.count() == 2


def test_a_write_waits_for_another_processs_short_transaction(path: Path) -> None:
    letters = DeadLetters(path, "shop-prod", MB)
    letters.put([LETTER])
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.2, other.execute, ["COMMIT"])
    timer.start()
    letters.put([LETTER])
    timer.join()
    other.close()
    assert letters.count() == 2


WRITER = """
import itertools, sys
from pathlib import Path
from leekfanout.stores.deadletters import DeadLetter, DeadLetters
from leekfanout.stores.spool import Spool

folder = Path(sys.argv[1])
letters = DeadLetters(folder / "letters", "shop-prod", 300_000)
spool = Spool(folder / "spool", 300_000)
for number in itertools.count():
    letters.put([DeadLetter("event", str(number), None, b"x" * (number % 7) * 1_000, 0.0)])
    spool.append(b"%d " % number + b"x" * (number % 7) * 1_000, events=1)
    print(number, flush=True)
"""


@pytest.mark.parametrize("lines", [1, 37, 200, 411])
def test_what_was_kept_outlives_a_kill_at_any_moment(tmp_path: Path, lines: int) -> None:
    command = [sys.executable, "-c", WRITER, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(lines):
            told = int(writer.stdout.readline())
        writer.kill()

    kept = [int(each.reason) for each in DeadLetters(tmp_path / "letters", "x", MB).select()]
    spooled = [int(entry.body.split()[0]) for entry in Spool(tmp_path / "spool", MB).after(0, MB)]
    for numbers in (kept, spooled):
        assert numbers == list(range(numbers[0], numbers[-1] + 1)), "the oldest are evicted first"
        assert numbers[-1] >= told
    assert set_aside(tmp_path / "letters") == set_aside(tmp_path / "spool") == []


def test_an_agent_that_puts_and_a_person_who_purges_do_not_disturb_each_other(path: Path) -> None:
    agent = DeadLetters(path, "shop-prod", 5 * MB)
    agent.put([LETTER])
    done = threading.Event()

    def put() -> None:
        for number in range(300):
            agent.put([LETTER._replace(reason=f"stays {number}"), LETTER])
        done.set()

    thread = threading.Thread(target=put)
    thread.start()
    person = DeadLetters(path, "shop-prod", 5 * MB, owner=False)
    purged = 0
    while not done.is_set():
        purged += person.purge(LetterFilter(reason="uuid"))
    purged += person.purge(LetterFilter(reason="uuid"))
    thread.join()
    assert purged == 301
    assert [each.reason for each in agent.select()] == [f"stays {number}" for number in range(300)]
    assert agent.count() == 300


def test_errors_name_the_file_and_nothing_that_is_in_it(path: Path) -> None:
    letters = DeadLetters(path, "shop-prod", MB)
    with files_no_larger_than(0), pytest.raises(StoreError) as caught:
        letters.put([LETTER._replace(payload=b"secret" * 100)])
    assert str(path) in str(caught.value)
    assert "secret" not in str(caught.value)
