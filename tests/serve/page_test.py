"""The page at / as somebody uses it who opens it in a browser. HADAL_SERVE_SCREENSHOTS: a folder for what it looks like."""

import asyncio
import os
import tempfile

from devtools import CONTROL, Page
from harness import Server, ask, metrics, model_with_template, run, until

SCREENSHOTS = os.environ.get("HADAL_SERVE_SCREENSHOTS")
SCREENS = {"desktop": (1100, 900, False), "phone": (390, 844, True)}


def text(page, name):
    return page.value(f"document.getElementById('{name}').textContent")


def until_ended(page):
    page.until("!document.getElementById('start').disabled")


def generate(page):
    """Presses the button and waits for the end. In how many pieces the answer came."""
    page.value("""window.grown = 0;
        new MutationObserver((changes) => {
            window.grown += changes.filter((change) => change.target.matches?.('.text, .thought')).length;
        }).observe(document.getElementById('answer'), { subtree: true, childList: true });""")
    page.click("#start")
    until_ended(page)
    return page.value("grown")


def take_screenshots(page, name):
    """Nothing may be wider than its screen, in neither colours nor sizes."""
    for screen, (width, height, phone) in SCREENS.items():
        for colours in "light", "dark":
            page.show(width, height, dark=colours == "dark", phone=phone)
            assert page.value("document.documentElement.scrollWidth <= innerWidth"), screen
            clipped = page.value("""[...document.querySelectorAll('input, select, button, dd, label')]
                .filter((e) => e.offsetParent && e.scrollWidth > e.clientWidth && getComputedStyle(e).display !== 'inline')
                .map((e) => e.id)""")
            assert clipped == [], (screen, clipped)
            if SCREENSHOTS:
                page.screenshot(os.path.join(SCREENSHOTS, f"{name}-{screen}-{colours}.png"))
    page.show(1100, 900)


async def a_prompt_and_its_answer():
    with Server() as server, Page(server.url + "/") as page:
        page.until("document.getElementById('model').textContent === 'fables'")
        assert page.value("[...document.getElementById('mode').options].map((o) => o.value)") == ["completions"]
        page.type("#prompt", "The king said <b>&amp;")
        page.type("#tokens", "64")
        page.type("#temperature", "0.8")
        page.type("#seed", "5")
        assert generate(page) > 1
        expected = (await ask(server, "POST", "/v1/completions", {
            "prompt": "The king said <b>&amp;", "max_tokens": 64, "temperature": 0.8, "seed": 5})).json()
        # Markup of prompt and answer is text.
        assert text(page, "answer") == "The king said <b>&amp;" + expected["choices"][0]["text"]
        assert page.value("document.querySelector('#answer b')") is None
        usage = expected["usage"]
        assert (text(page, "count"), text(page, "given")) == (str(usage["completion_tokens"]), str(usage["prompt_tokens"]))
        assert float(text(page, "rate")) > 0
        assert text(page, "first").endswith(" ms") and float(text(page, "first").split()[0]) > 0
        take_screenshots(page, "answer")

        # By keys, the same again; without a seed another one.
        page.value("document.getElementById('prompt').focus()")
        page.press("Enter", CONTROL)
        page.until("document.getElementById('start').disabled")
        until_ended(page)
        assert text(page, "answer") == "The king said <b>&amp;" + expected["choices"][0]["text"]
        page.type("#seed", "6")
        generate(page)
        assert text(page, "answer") != "The king said <b>&amp;" + expected["choices"][0]["text"]

        assert page.problems == [], page.problems
        assert {url.removeprefix(server.url) for url in page.requests if not url.startswith("data:")} == {
            "/", "/health", "/v1/completions"}


async def stop_and_errors():
    with Server() as server, Page(server.url + "/") as page:
        page.type("#prompt", "Once upon a time")
        page.type("#tokens", "2000")
        # Stopped at the third piece, by the page's own clock: however fast the server is, there is more to come.
        page.value("""(() => {
            let pieces = 0;
            new MutationObserver((_, watch) => {
              if (++pieces < 3) return;
              watch.disconnect();
              document.getElementById('stop').click();
            }).observe(document.querySelector('#answer'), { subtree: true, childList: true });
        })()""")
        page.click("#start")
        page.until("document.getElementById('note').textContent === 'Stopped.'")
        until_ended(page)
        assert page.value("document.getElementById('stop').disabled")
        assert 0 < int(text(page, "count")) < 2000
        so_far = text(page, "answer")

        async def all_is_free():
            now = await metrics(server)
            return now["hadal_requests_open"] == 0 and now["hadal_cache_pages_used"] == 0
        await until(all_is_free)
        assert text(page, "answer") == so_far and len(so_far) > len("Once upon a time")
        page.press("Tab")  # the page still works
        assert page.problems == [], page.problems

        page.type("#prompt", "once " * 4000)
        generate(page)
        assert text(page, "note").startswith("prompt"), text(page, "note")
        assert text(page, "answer") == ""
        assert page.value("document.getElementById('note').className") == "wrong"
        take_screenshots(page, "error")
        # The browser's own line about the status of an answer is its only one.
        assert len(page.problems) == 1 and "400" in page.problems[0], page.problems
        page.type("#prompt", "Once upon a time")
        page.type("#tokens", "8")
        generate(page)
        assert text(page, "count") == "8" and page.value("document.getElementById('note').className") == ""

        # What does not fit is scrolled, and its end in sight.
        page.show(390, 400)
        page.type("#tokens", "300")
        page.type("#temperature", "0")
        generate(page)
        page.value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        more, top = page.value("""(() => {
            const box = document.getElementById('answer');
            return [box.scrollHeight - box.clientHeight, box.scrollTop];
        })()""")
        assert more > 100 and abs(more - top) < 2, (more, top)

        # A server that ends in the middle is not the end of the answer.
        page.type("#tokens", "2000")
        page.click("#start")
        page.until("Number(document.getElementById('count').textContent) > 2")
        server.child.kill()
        until_ended(page)
        if text(page, "count") != "2000":  # the whole answer may have been on its way
            assert page.value("document.getElementById('note').className") == "wrong" and text(page, "note") != ""


async def chat_with_a_key():
    with tempfile.TemporaryDirectory() as directory:
        model = model_with_template(directory)
        with Server("--api-key", "a key", model=model) as server, Page(server.url + "/") as page:
            page.until("!document.getElementById('key-field').hidden")
            generate(page)
            assert text(page, "note") == "The server asks for a key." and text(page, "model").strip() == ""
            page.type("#key", "another key")
            generate(page)
            assert text(page, "note") == "The server does not know this key."
            page.type("#key", "a key")
            page.value("""(() => {
                const mode = document.getElementById('mode');
                mode.value = 'chat';
                mode.dispatchEvent(new Event('change', { bubbles: true }));
            })()""")
            page.type("#tokens", "40")
            page.type("#temperature", "0")
            page.type("#prompt", "A tale")
            take_screenshots(page, "chat")
            for thinking in False, True:
                if thinking:
                    page.click("#thinking")
                generate(page)
                body = {"messages": [{"role": "user", "content": "A tale"}], "max_tokens": 40, "temperature": 0,
                        "chat_template_kwargs": {"thinking": thinking}}
                answer = (await ask(server, "POST", "/v1/chat/completions", body, ["Authorization: Bearer a key"])).json()
                message = answer["choices"][0]["message"]
                assert page.value("document.querySelector('#answer .thought').textContent") == (
                    message.get("reasoning_content") or "")
                assert page.value("document.querySelector('#answer .thought').textContent.length") == 0 or thinking
                assert text(page, "answer") == (message.get("reasoning_content") or "") + (message["content"] or "")
                assert text(page, "count") == "40"
            take_screenshots(page, "thought")
            assert text(page, "model") == "fables-chat"


if __name__ == "__main__":
    run(a_prompt_and_its_answer, stop_and_errors, chat_with_a_key)
