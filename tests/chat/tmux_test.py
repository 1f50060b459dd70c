"""hadal-chat on a terminal: tmux types and shows the screen. What is waited for is what the screen says, never a time.

Environment: HADAL_CHAT the program, HADAL_TEST_LAUNCHER what starts it (optional), HADAL_FABLES the model,
HADAL_CHAT_CACHE for pipelines (optional). Ends with 77 where there is no tmux."""

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time

FABLES = os.environ["HADAL_FABLES"]
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PATIENCE = 240  # seconds until what must come has not: a machine under load is slow


class Terminal:
    """A tmux server of its own with one pane, in which the program runs until the end of the with block."""

    servers = 0

    def __init__(self, directory, *flags, model, shell=None, **environment):
        """With a shell nothing runs yet: "./chat" starts the program."""
        self.directory = directory
        Terminal.servers += 1  # the one before may still be ending
        self.socket = os.path.join(directory, f"tmux{Terminal.servers}")
        self.code = os.path.join(directory, "exit-code")
        launcher = os.environ.get("HADAL_TEST_LAUNCHER", "").split()
        command = shlex.join(launcher + [os.environ["HADAL_CHAT"], model, *map(str, flags)])
        # Ctrl-C goes to the shell, too. The pane stays behind the program's end, so that its last words can be read.
        self.command = f"trap : INT; {command}; echo $? > {shlex.quote(self.code)}; exec cat"
        if shell is not None:
            with open(os.path.join(directory, "chat"), "w") as file:
                file.write(f"#!/bin/sh\nexec {command}\n")
            os.chmod(os.path.join(directory, "chat"), 0o700)
            self.command = f"cd {shlex.quote(directory)}; PS1='$ ' exec {shell}"
        self.environment = dict(os.environ, LP_NUM_THREADS="0", LC_ALL="C.UTF-8",
                                XDG_STATE_HOME=os.path.join(directory, "state"), HOME=directory,
                                XDG_CACHE_HOME=os.environ.get("HADAL_CHAT_CACHE", os.path.join(directory, "cache")),
                                **environment)
        self.environment.pop("TMUX", None)
        self.environment.pop("NO_COLOR", None)
        self.environment.update(environment)

    def tmux(self, *words):
        done = subprocess.run(["tmux", "-S", self.socket, "-f", "/dev/null", *words], env=self.environment,
                              capture_output=True, timeout=PATIENCE)
        if done.returncode != 0:
            raise RuntimeError(f"tmux {words}: {done.stderr.decode()}")
        return done.stdout.decode()

    def __enter__(self):
        if os.path.exists(self.code):
            os.remove(self.code)
        self.tmux("new-session", "-d", "-x", "100", "-y", "50", "/bin/sh", "-c", self.command)
        self.tmux("set-option", "-g", "history-limit", "50000")
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            print("---- the screen", self.screen(), "----", sep="\n", file=sys.stderr)
        pane = int(self.tmux("display-message", "-p", "#{pane_pid}"))
        self.tmux("kill-server")
        end = time.monotonic() + PATIENCE
        while os.path.exists(f"/proc/{pane}"):  # a shell may write its history into the directory
            assert time.monotonic() < end, "the pane's program does not end"
            time.sleep(0.01)

    def screen(self, escapes=False):
        """All that was shown, long lines whole."""
        return self.tmux("capture-pane", "-p", "-J", "-S", "-", *(["-e"] if escapes else []))

    def type(self, text, enter=True):
        self.tmux("send-keys", "-l", text)
        if enter:
            self.key("Enter")

    def key(self, *names):
        self.tmux("send-keys", *names)

    def paste(self, text):
        """As a terminal pastes where it is asked to mark it."""
        self.tmux("set-buffer", text)
        self.tmux("paste-buffer", "-p")

    def until(self, check, what):
        end = time.monotonic() + PATIENCE
        while not (found := check(self.screen())):
            assert time.monotonic() < end, f"never: {what}"
            time.sleep(0.05)
        return found

    def until_text(self, text, times=1):
        self.until(lambda screen: screen.count(text) >= times, f"{text!r} {times} times")

    def until_prompt(self, line="", prompt=">>>"):
        """The last line is a prompt with this behind it."""
        wanted = f"{prompt} {line}".rstrip()
        self.until(lambda screen: screen.rstrip().splitlines()[-1:] == [wanted], wanted)

    def stop_an_answer(self, question, most_tokens):
        """Ctrl-C while an answer is under way; how many tokens it got. Asks again where it was over before."""
        for _ in range(50):
            answers = self.screen().count("first token")
            self.type(question)
            self.until(lambda screen: len(screen.rsplit(f">>> {question}\n", 1)[-1].split()) > 20, "an answer under way")
            self.key("C-c")
            self.until_text("first token", times=answers + 1)
            self.until_prompt()
            said = int(re.findall(r"answer (\d+) tokens", self.screen())[-1])
            assert 0 < said <= most_tokens, said
            if said < most_tokens:
                return
            self.type("/undo")
            self.until_text("are taken back")
            self.until_prompt()
        raise AssertionError("each answer was over before Ctrl-C came")

    def exit_code(self):
        end = time.monotonic() + PATIENCE
        while not os.path.exists(self.code) or not open(self.code).read().endswith("\n"):
            assert time.monotonic() < end, "it never ends"
            time.sleep(0.05)
        return int(open(self.code).read())


def model_with_template(directory, template):
    path = os.path.join(directory, "fables-" + template)
    os.mkdir(path)
    for name in os.listdir(FABLES):
        os.symlink(os.path.join(FABLES, name), os.path.join(path, name))
    shutil.copy(os.path.join(SOURCE, "tests/chat_templates", template + ".jinja"),
                os.path.join(path, "chat_template.jinja"))
    return path


def conversation(file):
    return json.load(open(file))["messages"]


def a_whole_session(directory):
    """A question, one that is stopped while it is answered, history, files, and the end."""
    saved, other = os.path.join(directory, "a.json"), os.path.join(directory, "b.json")
    # Token 1 ends an answer: without it each goes on to max_tokens.
    with Terminal(directory, "--logit-bias", "1=-100", "--seed", 3, "-n", 20,
                  model=model_with_template(directory, "v3")) as t:
        t.until_prompt()
        assert "/help lists commands" in t.screen()
        t.type("Tell me äbout a fox")
        t.until_text("answer 20 tokens")
        t.until_prompt()
        t.type("/set max_tokens 1900")
        t.until_prompt()
        t.stop_an_answer("a long one", most_tokens=1900)
        t.type("/set max_tokens 12")
        t.until_prompt()
        t.type("what then?")
        t.until_text("answer 12 tokens")
        t.until_prompt()
        t.type(f"/save {saved}")
        t.until_text(f"3 questions saved in {saved}")
        messages = conversation(saved)
        assert [m["role"] for m in messages] == ["user", "assistant"] * 3
        assert [m["content"] for m in messages[::2]] == ["Tell me äbout a fox", "a long one", "what then?"]
        shown = "".join(t.screen().split())
        for message in messages[1::2]:  # all that was shown was kept, and nothing else
            assert "".join(message["content"].split()) in shown, message

        t.key("Up")  # /save
        t.until_prompt(f"/save {saved}")
        t.key("Up")
        t.until_prompt("what then?")
        t.key("C-a")
        t.type("And ", enter=False)
        t.until_prompt("And what then?")
        t.key("Enter")
        t.until_text("answer 12 tokens", times=2)
        t.until_prompt()
        t.type(f"/load {saved}")
        t.until_text(f"3 questions loaded from {saved}")
        t.type("/reset")
        t.until_text("the conversation is empty")
        t.until_prompt()
        t.type("Hello\\")
        t.until_text("... ")
        t.type("there")
        t.until_text("answer 12 tokens", times=3)
        t.until_prompt()
        t.type(f"/save {other}")
        t.until_text(f"1 question saved in {other}")
        assert conversation(other)[0]["content"] == "Hello\nthere"
        t.until_prompt()
        t.key("C-d")
        assert t.exit_code() == 0
    history = os.path.join(directory, "state", "hadal", "chat_history")
    assert stat.S_IMODE(os.stat(history).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(history)).st_mode) == 0o700
    lines = open(history).read().splitlines()
    assert lines[0] == "Tell me äbout a fox" and lines.count("And what then?") == 1, lines


def keys_at_the_prompt(directory):
    """Ctrl-C clears a line, twice leaves; history of the session before; completion; what was typed ahead."""
    model = model_with_template(directory, "v3")
    with Terminal(directory, "-n", 5, model=model) as t:
        t.until_prompt()
        t.type("remember me")
        t.until_text("answer ")
        t.until_prompt()
        t.key("C-d")
        assert t.exit_code() == 0
    with Terminal(directory, "--logit-bias", "1=-100", "-n", 600, model=model) as t:
        t.until_prompt()
        t.key("Up")
        t.until_prompt("remember me")
        t.key("C-c")
        t.until_text("remember me^C")
        t.until_prompt()
        t.type('"""')
        t.until_text("... ")
        t.type("in a block")
        t.until_text("... in a block")
        t.until_prompt(prompt="...")
        t.key("C-c")
        t.until_prompt()
        t.paste("pasted\n  lines ü\n")
        t.until_text("  lines ü")
        t.key("Enter")
        t.until_text("first token")
        t.until_prompt()
        t.type(f"/save {directory}/c.json")
        t.until_text("1 question saved")
        assert conversation(f"{directory}/c.json")[0]["content"] == "pasted\n  lines ü"
        t.type("/reset")
        t.until_text("the conversation is empty")
        t.until_prompt()
        t.type("/hel", enter=False)
        t.key("Tab")
        t.until_prompt("/help")
        t.key("Enter")
        t.until_text("leaves; arrows and Ctrl-R")
        t.until_prompt()
        t.type("go on and on")
        t.until(lambda screen: len(screen.rsplit(">>> go on and on\n", 1)[-1].split()) > 20, "an answer under way")
        t.type("/stats off")  # while it is answered: shown at the next prompt only
        t.until_text(">>> /stats off")
        t.until_prompt()
        assert t.screen().count("/stats off") == 1
        t.key("C-c")
        t.until_text("Ctrl-C again or Ctrl-D leaves")
        t.until_prompt()
        t.key("C-c")
        assert t.exit_code() == 130


def stopped_and_continued(directory):
    """Ctrl-Z in an answer gives the shell a terminal that shows what is typed; back in front nothing is shown again."""
    model = model_with_template(directory, "v3")
    for shell in "sh -i", "bash --noprofile --norc -i":
        if shutil.which(shell.split()[0]) is None:
            continue
        with Terminal(directory, "--logit-bias", "1=-100", "-n", 900, "--quiet", model=model, shell=shell) as t:
            t.until_prompt(prompt="$")
            t.type("./chat")
            t.until_prompt()
            for attempt in range(50):
                question, ahead = f"question{attempt}", f"ahead{attempt}"
                t.type(question)
                under_way(t, f">>> {question}\n")
                t.key("C-z")
                last = t.until(lambda screen: (lines := screen.rstrip().splitlines()) and lines[-1][:3] in ("$", ">>>")
                               and lines[-1], "a prompt")
                if last != "$":  # the answer was over before
                    t.key("C-u")
                    t.until_prompt()
                    continue
                t.type("fg", enter=False)  # a shell without an editor of its own leaves its echo to the terminal
                t.until_prompt("fg", prompt="$")
                t.key("Enter")
                under_way(t, "$ fg\n./chat\n")
                t.type(ahead, enter=False)
                in_time = ">>>" not in t.screen().rsplit("$ fg\n", 1)[-1]
                t.until_prompt(ahead)
                assert t.screen().count(ahead) == 1, "it was shown while it was typed"
                t.key("C-u")
                t.until_prompt()
                t.type("/reset")
                t.until_prompt()
                if in_time:
                    break
            else:
                raise AssertionError("each answer was over before something was typed")
            t.key("C-d")
            t.until_prompt(prompt="$")


def under_way(t, behind):
    """An answer, or what is left of it, behind this text; or its end."""
    t.until(lambda screen: len((text := screen.rsplit(behind, 1)[-1]).split()) > 20 or ">>>" in text, "an answer under way")


def reasoning_on_a_terminal(directory):
    """Dim with colour, between lines without it."""
    model = model_with_template(directory, "r1")
    with Terminal(directory, "-n", 10, "--logit-bias", "1=-100", model=model) as t:
        t.until_prompt()
        t.type("why")
        t.until_text("answer 10 tokens")
        t.until_prompt()
        assert "<think>" not in t.screen()
        below = t.screen(escapes=True).split(">>> why")[1]
        assert below.splitlines()[1].startswith("\x1b[2m"), repr(below)
        t.key("C-d")
        assert t.exit_code() == 0
    with Terminal(directory, "-n", 10, "--logit-bias", "1=-100", model=model, NO_COLOR="1") as t:
        t.until_prompt()
        t.type("why")
        t.until_text("answer 10 tokens")
        t.until_prompt()
        assert "\n<think>\n" in t.screen() and "\n</think>\n" in t.screen()
        assert "\x1b[2m" not in t.screen(escapes=True)
        t.key("C-d")
        assert t.exit_code() == 0


def piped_to_one_who_leaves(directory):
    """A reader that has gone ends the program without a word."""
    launcher = os.environ.get("HADAL_TEST_LAUNCHER", "").split()
    child = subprocess.Popen(launcher + [os.environ["HADAL_CHAT"], FABLES, "--quiet", "-n", "1900", "--logit-bias", "1=-100"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             env=dict(os.environ, LP_NUM_THREADS="0", HOME=directory))
    child.stdin.write(b"Once upon a time\nand then\n")
    child.stdin.flush()
    assert child.stdout.read(1)
    child.stdout.close()
    assert child.wait(PATIENCE) == 2
    assert child.stderr.read() == b""


def main():
    if shutil.which("tmux") is None:
        print("there is no tmux")
        sys.exit(77)
    try:
        for end in os.openpty():
            os.close(end)
    except OSError as error:
        print(f"there are no pseudo-terminals (/dev/pts): {error}")
        sys.exit(77)
    wanted = sys.argv[1:]
    for test in (a_whole_session, keys_at_the_prompt, stopped_and_continued, reasoning_on_a_terminal, piped_to_one_who_leaves):
        if wanted and test.__name__ not in wanted:
            continue
        begin = time.monotonic()
        print(f"{test.__name__} ...", flush=True)
        with tempfile.TemporaryDirectory(prefix="hadal-chat-") as directory:
            test(directory)
        print(f"{test.__name__} ok, {time.monotonic() - begin:.1f} s", flush=True)


main()
