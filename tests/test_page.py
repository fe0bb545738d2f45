"""The page at `/`, in a real browser if one is installed, before a server with literal answers."""

import asyncio
import re
import shutil
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse

from tunerank.serving.feedback import feedback_router
from tunerank.serving.page import page_router, policy, render

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
SYSTEMS = ("bm25", "dense", "retriever", "base", "reranker", "fused", "reranker_whole")
TITLES = ["电池与充电", "保修条款", "门锁安装", "网关指示灯", "摄像头存储"]
TEXT = (
    "😀一、保修。整机自签收之日起保修两年，电池自签收之日起保修一年，以发票日期为准。人为损坏、"
    "进水、私自拆机不在保修范围内。二、返修。寄回前请先在小程序里提交申请，客服会在一个工作日内"
    "给出地址；来回运费由云杉承担。返修一般在七个工作日内完成，期间不提供备用机。"
)
SPAN = (19, 31)
DECIDING = "电池自签收之日起保修一年"
EVIL = "<img src=x onerror=document.title='taken'><script>document.title='taken'</script>&amp;"


def found(system: str, query: str, count: int = 10) -> list[dict]:
    """Return the answer of a system: the same ten passages, in an order of its own."""
    shift = SYSTEMS.index(system)
    rows = []
    for rank in range(1, count + 1):
        number = (rank + shift) % 10
        title = TITLES[number % 5] if number % 5 else ""
        scores = {"reranker": 4.5 - rank, "dense": 0.9 - rank / 100, "bm25": None}
        rows.append(
            {
                "rank": rank,
                "passage": f"p{number}",
                "title": EVIL if query == "evil" else title,
                "text": EVIL if query == "evil" else TEXT,
                "score": 5 - rank / 4,
                "scores": scores,
                "span": [0, len(EVIL)] if query == "evil" else list(SPAN),
            }
        )
    return rows


def make_app(folder, feedback: bool) -> FastAPI:
    app = FastAPI()
    app.state.asked, app.state.judged = [], []
    app.include_router(page_router(SYSTEMS, feedback))

    @app.post("/search")
    async def search(request: Request):
        values = await request.json()
        app.state.asked.append((values["system"], values["query"], values["top_k"]))
        query, system = values["query"], values["system"]
        if query == "slow":
            await asyncio.sleep(1.0 if system == "fused" else 0.1)
        if query == "busy":
            return JSONResponse({"detail": "busy"}, 429, headers={"Retry-After": "7"})
        if query == "refused" and system == "base":
            return JSONResponse({"detail": "query:\n too  long; cut it"}, 422)
        if query == "crash":
            return PlainTextResponse("Internal Server Error", 500)
        if query == "garbage":
            return PlainTextResponse("<html>")
        if query == "odd":
            return {"results": "none"}
        if query == "locked" and request.headers.get("authorization") != "Bearer secret":
            return JSONResponse({"detail": "no key"}, 401)
        return {"results": [] if query == "none" else found(system, query)}

    @app.middleware("http")
    async def note(request: Request, call_next):
        if request.url.path == "/feedback":
            app.state.judged.append(await request.json())
            if app.state.judged[-1].get("query") == "unkept":
                return JSONResponse({"detail": "2026-11.csv is full"}, 507)
        return await call_next(request)

    if feedback:
        app.include_router(feedback_router(folder))
    return app


@pytest.fixture(scope="module")
def servers(tmp_path_factory) -> Iterator[dict]:
    """Return whether feedback is on -> a running server: address, app, folder of the feedback."""
    made, running = {}, []
    for feedback in (False, True):
        folder = tmp_path_factory.mktemp("feedback")
        app = make_app(folder, feedback)
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        running.append((server, thread))
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        made[feedback] = SimpleNamespace(
            address=f"http://127.0.0.1:{port}/", app=app, folder=folder
        )
    yield made
    for server, thread in running:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        pytest.skip("no Chromium here; on Debian: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def opened(browser, servers):
    """Return a function that opens the page; no page may have errors or ask another server."""
    troubles, contexts = [], []

    def go(address: str = "", feedback: bool = False, **options):
        server = servers[feedback]
        server.app.state.asked.clear()
        server.app.state.judged.clear()
        context = browser.new_context(**{"locale": "en-GB", **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on(
            "console",
            lambda message: (
                troubles.append(message.text)
                if message.type in ("error", "warning")
                and not message.text.startswith("Failed to load resource")
                else None
            ),
        )
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((server.address, "data:"))
                else troubles.append(request.url)
            ),
        )
        page.goto(server.address + address)
        return page

    yield go
    for context in contexts:
        context.close()
    assert troubles == []


def until(page, expression: str) -> None:
    """Wait for an expression. The page's policy does not let playwright's own waiting evaluate."""
    end = time.monotonic() + 10
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(20)


def ask(page, query: str) -> None:
    page.fill("#query", query)
    page.press("#query", "Enter")
    until(page, "!document.body.classList.contains('pending')")


def settled(page) -> None:
    page.locator("article:visible").first.wait_for()
    until(page, "!document.body.classList.contains('pending')")


def asked(page) -> tuple[str, str]:
    values = parse_qs(urlsplit(page.url).query)
    return values["q"][0], values["systems"][0]


# what is served


def test_the_page_shows_the_systems_that_there_are():
    def settings(*systems):
        text = re.search('data-settings="(.*?)"', render(systems, False))[1]
        return text.replace("&quot;", '"')

    assert settings("bm25", "dense", "fused", "reranker") == (
        '{"systems": ["dense", "reranker", "fused", "bm25"], '
        '"shown": ["dense", "reranker", "fused"], "feedback": false}'
    )
    assert (
        settings("elastic") == '{"systems": ["elastic"], "shown": ["elastic"], "feedback": false}'
    )
    with pytest.raises(ValueError):
        render([], False)
    assert '"><script>' not in render(['a"><script>'], True)


def test_the_policy_allows_this_script_and_this_server_alone(opened, servers):
    page = opened()
    response = page.reload()
    headers = response.headers
    assert headers["content-security-policy"] == policy(response.text())
    assert re.fullmatch(
        r"default-src 'none'; script-src 'sha256-[A-Za-z0-9+/]{43}='; "
        r"style-src 'sha256-[A-Za-z0-9+/]{43}='; connect-src 'self'; img-src data:; "
        r"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        headers["content-security-policy"],
    )
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert not re.search(r"(?:src|href)=\"?(?:https?:)?//|@import|url\(", response.text())


# searching


def test_a_query_shows_each_systems_passages_side_by_side(opened, servers):
    page = opened()
    ask(page, "  电池保修几年？ ")
    assert page.locator("h2").all_inner_texts() == ["Dense", "Base", "Fine-tuned", "Fused"]
    assert sorted(servers[False].app.state.asked) == [
        (system, "电池保修几年？", 10) for system in ("base", "dense", "fused", "reranker")
    ]
    tops = set()
    for system in ("dense", "base", "reranker", "fused"):
        cards = page.locator(f"#column-{system} article")
        assert cards.count() == 10
        rows = found(system, "")
        assert cards.locator(".rank").all_inner_texts() == [str(rank) for rank in range(1, 11)]
        assert cards.locator("h3").all_inner_texts() == [
            row["title"] or row["passage"] for row in rows
        ]
        assert cards.locator("mark").all_inner_texts() == [DECIDING] * 10
        assert cards.nth(1).locator(".score").inner_text() == "4.500"
        assert cards.nth(1).locator(".parts").inner_text() == (
            f"Fine-tuned 2.50\nDense 0.880\nBM25 –\nid {rows[1]['passage']}"
        )
        tops.add(round(cards.nth(9).bounding_box()["y"]))
    assert len(tops) == 1  # the tenth passages stand beside each other
    assert re.fullmatch(r"10 passages in \d+\.\d\d s", page.inner_text("#message"))
    assert page.title() == "电池保修几年？ – tunerank"


def test_the_deciding_text_is_found_among_characters_of_two_units(opened):
    page = opened("?q=a&systems=fused")
    settled(page)
    card = page.locator("article").first
    assert card.locator(".text").inner_text() == TEXT  # it starts before the deciding text
    longer = "𝄞" * 40 + DECIDING + "。" * 40
    page.evaluate(
        "text => { state.found.get('fused')[0].text = text;"
        "state.found.get('fused')[0].span = [40, 52]; draw('fused') }",
        longer,
    )
    assert card.locator("mark").inner_text() == DECIDING
    assert card.locator(".text").inner_text() == "…" + "𝄞" * 24 + DECIDING + "。" * 40
    card.get_by_role("button", name="More").click()
    assert card.locator(".text").inner_text() == longer
    assert card.locator("mark").inner_text() == DECIDING
    assert card.get_by_role("button", name="Less").get_attribute("aria-expanded") == "true"


def test_an_address_brings_back_the_query_and_the_systems(opened):
    page = opened()
    ask(page, "甲 & 乙+丙?")
    for name in ("Dense", "Base"):
        page.get_by_role("checkbox", name=name, exact=True).uncheck()
    page.get_by_text("More systems").click()
    page.get_by_role("checkbox", name="BM25").check()
    settled(page)
    assert asked(page) == ("甲 & 乙+丙?", "reranker,fused,bm25")
    link = page.get_by_role("link", name="Link").get_attribute("href")
    ask(page, "second")
    other = opened(link)
    settled(other)
    assert other.input_value("#query") == "甲 & 乙+丙?"
    assert other.locator("h2").all_inner_texts() == ["Fine-tuned", "Fused", "BM25"]
    assert other.locator("article").count() == 30
    assert other.get_by_role("checkbox", name="BM25").is_checked()  # it is unfolded
    page.go_back()
    settled(page)
    assert page.input_value("#query") == "甲 & 乙+丙?"
    page.go_forward()
    settled(page)
    assert page.input_value("#query") == "second"
    unknown = opened("?q=a&systems=mine,__proto__")
    settled(unknown)
    assert unknown.locator("h2").count() == 4


def test_a_system_that_is_added_is_asked_alone(opened, servers):
    page = opened("?q=a&systems=fused")
    settled(page)
    servers[False].app.state.asked.clear()
    page.get_by_text("More systems").click()
    page.get_by_role("checkbox", name="Fine-tuned, whole").check()
    settled(page)
    assert servers[False].app.state.asked == [("reranker_whole", "a", 10)]
    assert page.locator("article").count() == 20


def test_the_last_search_wins(opened):
    page = opened()
    page.fill("#query", "slow")
    page.press("#query", "Enter")
    ask(page, "evil")
    page.wait_for_timeout(1300)
    assert page.locator("#column-fused h3").first.inner_text() == EVIL


def test_a_search_in_progress_is_shown_and_nothing_jumps(opened):
    page = opened(viewport={"width": 1280, "height": 900})
    page.fill("#query", "slow")
    page.press("#query", "Enter")
    page.wait_for_selector("#column-base article")
    assert page.inner_text("#message") == "Searching …"
    fused = page.locator("#column-fused")
    assert fused.get_attribute("aria-busy") == "true"
    assert page.locator("#column-base").get_attribute("aria-busy") == "false"
    boxes = [fused.locator(".card").nth(at).bounding_box() for at in (0, 9)]
    height = page.evaluate("document.documentElement.scrollHeight")
    page.wait_for_selector("#column-fused article")
    assert [fused.locator(".card").nth(at).bounding_box() for at in (0, 9)] == boxes
    assert page.evaluate("document.documentElement.scrollHeight") == height
    assert fused.get_attribute("aria-busy") == "false"


def test_an_error_of_the_server_is_one_line(opened):
    page = opened()
    for query, line in {
        "busy": "Dense: The server is busy; try again in 7 s.",
        "refused": "Base: query: too long; cut it",
        "crash": "Dense: The server answered 500.",
        "garbage": "Dense: The server's answer cannot be read.",
        "odd": "Dense: The server's answer cannot be read.",
    }.items():
        ask(page, query)
        assert page.inner_text("#message") == line
        assert "error" in page.get_attribute("#message", "class")
        assert page.locator("#message").bounding_box()["height"] < 30
    ask(page, "refused")  # the other systems' passages are there
    assert page.locator("article").count() == 30
    ask(page, "none")
    assert page.locator("ol").all_inner_texts() == ["No passages."] * 4
    assert page.get_attribute("#message", "class") == ""
    ask(page, "   ")
    assert page.inner_text("#message") == "Type a query first."
    for name in ("Dense", "Base", "Fine-tuned", "Fused"):
        page.get_by_role("checkbox", name=name, exact=True).uncheck()
    assert page.inner_text("#message") == "Choose at least one system."


def test_a_server_that_is_gone_is_one_line(opened):
    page = opened()
    page.route("**/search", lambda route: route.abort())
    ask(page, "a")
    assert page.inner_text("#message") == "Dense: The server does not answer. Is it still running?"


def test_a_key_is_asked_for_and_sent(opened):
    page = opened()
    assert not page.is_visible("#key")
    ask(page, "locked")
    assert page.inner_text("#message") == "Dense: This server needs a key."
    page.get_by_label("Key of this server").fill("secret")
    page.press("#key", "Enter")
    settled(page)
    assert page.locator("article").count() == 40
    assert "secret" not in page.url


def test_text_of_the_data_is_no_markup(opened):
    page = opened("?q=evil", feedback=True)
    settled(page)
    assert page.locator("h3").first.inner_text() == EVIL
    assert page.locator("p.text").first.inner_text() == EVIL
    assert page.title() == "evil – tunerank" and page.locator("img").count() == 0
    ask(page, EVIL)
    assert page.title() == f"{EVIL} – tunerank"


# keyboard


def focused(page) -> str:
    """Return where the focus is: a system and a rank, a button's name, or an id."""
    return page.evaluate(
        "() => { const e = document.activeElement; if (e.matches('article')) return "
        "`${e.closest('section').dataset.system} ${Number(e.dataset.at) + 1}`;"
        "return e.id || e.value || e.textContent }"
    )


def test_everything_can_be_done_with_the_keyboard(opened, servers):
    page = opened(feedback=True)
    keyboard = page.keyboard
    assert focused(page) == "query"
    keyboard.type("甲？")
    keyboard.press("Enter")
    settled(page)
    keyboard.press("ArrowDown")
    places = [focused(page)]
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight"):
        keyboard.press(key)
        places.append(focused(page))
    assert places == [
        *("dense 1", "dense 2", "dense 3", "base 3", "reranker 3", "fused 3", "fused 3")
    ]
    for key, place in {"End": "fused 10", "ArrowLeft": "reranker 10", "Home": "reranker 1"}.items():
        keyboard.press(key)
        assert focused(page) == place
    outline = page.evaluate("getComputedStyle(document.activeElement).outline")
    assert "solid" in outline and "3px" in outline
    keyboard.press("Enter")
    assert focused(page) == "reranker 1"
    assert "whole" in page.locator("#column-reranker article").first.get_attribute("class")
    order = []
    for _ in range(3):
        keyboard.press("Tab")
        order.append(focused(page))
    assert order == ["Less", "✓ Right", "✗ Wrong"]
    keyboard.press("Space")
    until(page, "document.getElementById('message').textContent === 'Saved: Wrong.'")
    assert servers[True].app.state.judged[0]["label"] == 0
    keyboard.press("Tab")  # the other cards are reached with arrows
    assert page.evaluate("document.activeElement.closest('article')") is None
    for key in ("Shift+Tab", "ArrowUp"):
        keyboard.press(key)
    assert focused(page) == "query"


def test_the_order_of_the_focus_is_that_of_the_page(opened):
    page = opened(feedback=True)
    ask(page, "甲？")
    page.focus("#language")
    order = [focused(page)]
    for _ in range(10):
        page.keyboard.press("Tab")
        order.append(focused(page))
    assert order == [
        *("language", "query", "Search"),
        *("dense", "base", "reranker", "fused", "More systems"),
        *("who", "link", "dense 1"),
    ]


@pytest.mark.parametrize("width", [360, 1280])
def test_everything_has_a_name(opened, width):
    page = opened("?q=a", feedback=True, viewport={"width": width, "height": 800})
    settled(page)
    snapshot = page.locator("body").aria_snapshot()
    roles = "button|textbox|searchbox|checkbox|link|tab|tabpanel|region|article|heading"
    assert len(re.findall(rf"- '?(?:{roles})\b", snapshot)) > 40
    assert re.findall(rf"- '?(?:{roles})(?! \")\b.*", snapshot) == []
    assert f'article "Rank 1: {found("fused", "")[0]["title"]}"' in snapshot


# languages, widths, colours


def test_the_page_is_in_the_browsers_language_and_can_be_switched(opened):
    page = opened("?q=a", locale="zh-CN")
    settled(page)
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    assert page.inner_text("h1") == "检索结果对比"
    assert page.locator("h2").all_inner_texts() == ["稠密检索", "基座", "微调后", "融合"]
    assert re.fullmatch(r"10 个段落，用时 \d+\.\d\d 秒", page.inner_text("#message"))
    shown = page.inner_text("body").replace("English", "").replace("tunerank", "")
    assert re.findall(r"[A-Za-z]{3,}", shown) == []
    page.click("#language")
    assert page.inner_text("h1") == "Search, side by side"
    assert page.locator("h2").all_inner_texts() == ["Dense", "Base", "Fine-tuned", "Fused"]
    assert re.fullmatch(r"10 passages in \d+\.\d\d s", page.inner_text("#message"))
    page.reload()
    settled(page)
    assert page.evaluate("document.documentElement.lang") == "en"
    other = opened(locale="fr-FR")
    assert other.evaluate("document.documentElement.lang") == "en"


def test_both_languages_have_all_strings(opened):
    kinds = opened().evaluate(
        "Object.values(STRINGS).map(table => Object.entries(table)"
        ".map(([name, text]) => `${name} ${typeof text} ${Object.keys(text)}`.slice(0, 60)))"
    )
    english, chinese = [[re.sub(r" (0,1|\d).*", "", kind) for kind in one] for one in kinds]
    assert english == chinese and len(english) > 30


@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
def test_a_phone_shows_one_column_at_a_time_and_does_not_scroll_sideways(opened, locale):
    page = opened(
        "?q=%E7%94%B2",
        feedback=True,
        viewport={"width": 360, "height": 740},
        locale=locale,
        has_touch=True,
        is_mobile=True,
    )
    settled(page)
    width = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
    assert page.evaluate(width) == 360
    assert page.get_by_role("tab").count() == 4
    rows = {round(tab.bounding_box()["y"]) for tab in page.get_by_role("tab").all()}
    assert len(rows) == 1
    assert page.get_by_role("tab", selected=True).get_attribute("id") == "tab-fused"
    assert page.locator("section:visible").count() == 1 and page.is_visible("#column-fused")
    page.tap("#tab-dense")
    assert page.is_visible("#column-dense") and not page.is_visible("#column-fused")
    page.keyboard.press("ArrowRight")
    assert focused(page) == "tab-base" and page.is_visible("#column-base")
    page.locator("#column-base article").nth(2).focus()
    page.keyboard.press("ArrowRight")
    assert focused(page) == "reranker 3" and page.is_visible("#column-reranker")
    for name in ("text", "title", "passage"):
        page.evaluate(f"state.found.get('reranker')[0].{name} = 'x'.repeat(500); draw('reranker')")
    page.locator("#column-reranker .more").first.tap()
    assert page.evaluate(width) == 360
    small = page.evaluate(
        "[...document.querySelectorAll('button, input, a')].filter(e => e.checkVisibility())"
        ".map(e => (e.closest('label') ?? e).getBoundingClientRect())"
        ".filter(box => box.width && (box.height < 24 || box.width < 24)).length"
    )
    assert small == 0
    page.set_viewport_size({"width": 1000, "height": 740})
    until(page, "document.querySelectorAll('section:not([hidden])').length === 4")
    assert page.locator("section:visible").count() == 4
    assert not page.is_visible("#tabs")


CONTRASTS = """() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(c => c / 255)
      .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ratio = (a, b) => {
    const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05);
  };
  const behind = element => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour.length === 3) return colour;
    }
    return [255, 255, 255];
  };
  const found = {};
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!(text || element.matches("input")) || !element.checkVisibility()) continue;
    if (element.closest("script, noscript")) continue;
    const style = getComputedStyle(element);
    const name = element.className || element.id || element.tagName;
    found[name] = Math.min(found[name] ?? 99, ratio(parse(style.color), behind(element)));
    if (element.matches("input, button")) {
      const edge = ratio(parse(style.borderTopColor), behind(element.parentElement));
      if (style.borderTopWidth !== "0px") found[`${name} edge`] = edge + 1.5;
    }
  }
  return found;
}"""
"""The contrast of each text with what is behind it, and of each edge plus 1.5: 4.5 and 3.0 are
WCAG 2.2's AA (https://www.w3.org/TR/WCAG22/#contrast-minimum)."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_contrast_in_light_and_in_dark_mode(opened, scheme):
    page = opened("?q=a", feedback=True, color_scheme=scheme)
    settled(page)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    channels = [int(number) for number in re.findall(r"\d+", background)]
    assert max(channels) < 60 if scheme == "dark" else min(channels) > 240
    page.locator(".right").first.click()
    page.locator(".wrong").nth(1).click()
    until(page, "document.querySelectorAll('[aria-pressed=true]').length === 8")
    until(page, "!state.sending.size")
    contrasts = page.evaluate(CONTRASTS)
    ask(page, "crash")
    contrasts |= page.evaluate(CONTRASTS)
    assert {"MARK", "text", "SPAN", "right", "wrong", "error", "query edge"} <= set(contrasts)
    assert {name: ratio for name, ratio in contrasts.items() if ratio < 4.5} == {}


# feedback


def test_without_feedback_nobody_can_judge(opened, servers):
    page = opened("?q=a")
    settled(page)
    assert page.locator("[aria-pressed]").count() == 0 and not page.is_visible("#who")
    status = page.evaluate("fetch('feedback', {method: 'POST', body: '{}'}).then(r => r.status)")
    assert status == 404


def test_a_click_is_kept_and_shown_in_every_column(opened, servers):
    page = opened("?q=%E7%94%B2%EF%BC%9F", feedback=True)
    settled(page)
    page.get_by_label("Signed by").fill(" 王芳 ")
    card = page.locator("#column-fused article").nth(3)
    passage = card.get_attribute("data-passage")
    for button, text, pressed in (
        (".right", "Saved: Right.", {"right": 4, "wrong": 0}),
        (".wrong", "Saved: Wrong.", {"right": 0, "wrong": 4}),
        (".wrong", "Withdrawn.", {"right": 0, "wrong": 0}),
        (".right", "Saved: Right.", {"right": 4, "wrong": 0}),
    ):
        card.locator(button).click()
        until(page, f"document.getElementById('message').textContent === {text!r}")
        until(page, "!state.sending.size")
        for name, count in pressed.items():
            assert page.locator(f".{name}[aria-pressed=true]").count() == count
            own = page.locator(f"[data-passage={passage}] .{name}[aria-pressed=true]")
            assert own.count() == count
    assert servers[True].app.state.judged == [
        {"query": "甲？", "passage": {"id": passage, "text": TEXT}, "label": label, "who": "王芳"}
        for label in (1, 0, None, 1)
    ]
    (path,) = servers[True].folder.iterdir()
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    own = [line.split(",") for line in lines if "王芳" in line]
    assert [line[1:] for line in own] == [["王芳", "甲？", passage, "1", TEXT]]
    ask(page, "another")
    assert page.locator("[aria-pressed=true]").count() == 0


def test_a_person_without_a_name_has_one_from_the_browser(opened, servers):
    page = opened("?q=a", feedback=True)
    settled(page)
    for at in (0, 1):
        page.locator("#column-base .right").nth(at).click()
        until(page, "document.getElementById('message').textContent[0] === 'S'")
        until(page, "!state.sending.size")
    names = {judged["who"] for judged in servers[True].app.state.judged}
    assert len(names) == 1 and re.fullmatch("browser-[0-9a-f]{8}", names.pop())


def test_a_click_that_was_not_kept_is_taken_back(opened):
    page = opened("?q=unkept", feedback=True)
    settled(page)
    page.locator("#column-base .right").first.click()
    until(page, "document.getElementById('message').classList.contains('error')")
    assert page.inner_text("#message") == "2026-11.csv is full"
    assert page.locator("[aria-pressed=true]").count() == 0


def test_passages_of_the_last_query_cannot_be_judged_for_the_next(opened, servers):
    page = opened("?q=a", feedback=True)
    settled(page)
    page.fill("#query", "slow")
    page.press("#query", "Enter")
    until(page, "!document.querySelector('#column-base[aria-busy=true]')")
    page.locator("#column-fused .right").first.click()
    assert page.locator("[aria-pressed=true]").count() == 0
    assert servers[True].app.state.judged == []
    settled(page)
