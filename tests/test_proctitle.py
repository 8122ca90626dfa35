"""What ``/proc`` shows of a process, tried in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def shown(code: str, *arguments: str, **env: str) -> list[str]:
    """Run code in a fresh interpreter and return the lines that it prints."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import os\nfrom leekfanout.supervision.proctitle import *\n{code}",
            *arguments,
        ],
        # Unbuffered: a fork would print what was held back a second time.
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **env},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout.splitlines()


CMDLINE = "print(open('/proc/self/cmdline').read().rstrip(chr(0)))\n"


def test_a_title_replaces_the_command_line() -> None:
    code = f"set_title('leekfanout: shop-prod')\n{CMDLINE}print(open('/proc/self/comm').read())"
    assert shown(code)[:2] == ["leekfanout: shop-prod", "leekfanout: sho"]


def test_a_second_title_leaves_nothing_of_the_first() -> None:
    code = f"set_title('leekfanout: supervisor')\nset_title('leekfanout: a-b')\n{CMDLINE}"
    assert shown(code) == ["leekfanout: a-b"]


def test_a_title_longer_than_the_command_line_is_cut_and_the_environment_left_whole() -> None:
    code = f"set_title('x' * 5000)\n{CMDLINE}print(os.environ['WHOLE'])\n"
    code += (
        "import subprocess\nprint(subprocess.check_output('echo $WHOLE', shell=True, text=True))"
    )
    title, *rest = shown(code, WHOLE="yes")
    assert title.strip("x") == ""
    assert 0 < len(title) < 5000
    assert rest[:2] == ["yes", "yes"]


def test_a_variable_is_forgotten_in_every_place() -> None:
    code = """
forget_variable('SECRETS')
import subprocess
print(os.environ.get('SECRETS'))
print(b's3cret' in open('/proc/self/environ', 'rb').read())
print(subprocess.check_output('echo "$SECRETS"', shell=True, text=True).strip() == '')
print(os.environ['OTHER'], b'OTHER=kept' in open('/proc/self/environ', 'rb').read())
pid = os.fork()
if pid == 0:
    print(b's3cret' in open('/proc/self/environ', 'rb').read(), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""
    lines = shown(code, SECRETS="s3cret" * 10_000, OTHER="kept", SECRETSX="")
    assert sorted(lines) == sorted(["None", "False", "True", "kept True", "False"])


def test_a_variable_is_hidden_and_kept() -> None:
    code = """
import subprocess
hide_variable('SECRETS')
print(os.environ['SECRETS'])
print(open('/proc/self/environ').read().count('s3cret'))
print(open('/proc/self/environ').read().count('KEPT='))
print(subprocess.run(['printenv', 'SECRETS'], capture_output=True, text=True).stdout.strip())
hide_variable('SECRETS')
print(os.environ['SECRETS'])
"""
    assert shown(code, SECRETS="s3cret", KEPT="1") == ["s3cret", "0", "1", "s3cret", "s3cret"]


def test_forgetting_what_is_not_there_is_no_error() -> None:
    assert shown("forget_variable('NO_SUCH')\nprint('fine')") == ["fine"]
