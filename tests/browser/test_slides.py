"""Each chapter's deck, opened from disk: nothing is fetched, lost, cut off, or too small for the back row."""

import re

import nbformat
import pytest
import slides

SMALLEST = 16  # px on a slide 720 px high: code that is 25 lines long; prose has 28
BROAD = 1.5  # px that a glyph may stand out

# Lays all slides in the window's corner and returns what stands out of them, and the smallest size of text on each.
MEASURE = """broad => {
    const style = document.createElement("style");
    style.textContent = `.reveal .slides section { display: block !important; position: absolute !important;
        inset: 0 auto auto 0 !important; width: 1280px !important; height: 720px !important;
        transform: none !important; }
        .reveal .slides { zoom: 1 !important; transform: none !important; inset: 0 !important; margin: 0 !important; }
        mjx-assistive-mml { display: none !important; }`;
    document.head.append(style);
    const out = [], small = [];
    for (const [number, slide] of Reveal.getSlides().entries()) {
        const box = slide.getBoundingClientRect();
        const texts = document.createTreeWalker(slide, NodeFilter.SHOW_TEXT);
        const range = document.createRange();
        const drawn = [...slide.querySelectorAll("img, mjx-container > svg")];
        const boxes = drawn.map(part => [part, part.getBoundingClientRect()]);
        while (texts.nextNode()) {
            const parent = texts.currentNode.parentElement;
            if (!texts.currentNode.textContent.trim() || parent.closest("mjx-container")) continue;
            range.selectNodeContents(texts.currentNode);
            boxes.push([parent, range.getBoundingClientRect()]);
            if (!parent.closest(".running, sup, sub")) small.push(parseFloat(getComputedStyle(parent).fontSize));
        }
        for (const [part, own] of boxes) {
            if (own.right > box.left + 1280 + broad || own.bottom > box.top + 720 + broad
                || own.left < box.left - broad || own.top < box.top - broad)
                out.push(`slide ${number + 1}: ${part.tagName} ${part.textContent.slice(0, 60)}`);
        }
    }
    return {out, smallest: Math.min(...small)};
}"""


def slide_type(cell):
    return cell.metadata.get("slideshow", {}).get("slide_type")


@pytest.fixture(scope="module", params=slides.chapters(), ids=lambda path: path.stem)
def deck(request, chrome, tmp_path_factory):
    """The page of a deck, laid out, with what it asked for and what went wrong on it."""
    file = tmp_path_factory.mktemp("slides") / "deck.html"
    file.write_text(slides.deck(request.param), encoding="utf-8")
    context = chrome.new_context(viewport={"width": 1280, "height": 720}, offline=True)
    page = context.new_page()
    page.asked, page.problems = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda message: page.problems.append(message.text) if message.type == "error" else None)
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    notebook = nbformat.read(request.param, as_version=4)
    page.cells = [cell for cell in notebook.cells if slide_type(cell) not in ("skip", "notes")]
    page.file = file
    yield page
    context.close()


def test_it_opens_offline_and_sets_every_formula(deck):
    assert [url for url in deck.asked if not url.startswith("data:")] == [deck.file.as_uri()]
    assert deck.problems == []
    assert deck.locator("mjx-merror, [data-mml-node='merror']").count() == 0
    assert deck.locator("mjx-container").count() > 0


def test_every_cell_is_on_a_slide(deck):
    code = [cell for cell in deck.cells if cell.cell_type == "code"]
    shown = deck.locator("section > .highlight").all_text_contents()
    sources = [cell.source.strip() for cell in code]
    assert [text.strip() for text in shown if text.strip() in sources] == sources  # code in prose is shown alike
    data = [output.get("data", {}) for cell in code for output in cell.outputs]
    pictures = [bundle["text/plain"] for bundle in data if "image/png" in bundle]
    assert deck.locator("section > img").evaluate_all("images => images.map(image => image.alt)") == pictures
    prose = "\n".join(cell.source for cell in deck.cells if cell.cell_type == "markdown")
    rows, rules = (len(re.findall(pattern, prose, re.MULTILINE)) for pattern in (r"^\|", r"^\|[-:| ]+$"))
    assert deck.locator("section > table > tbody > tr").count() == rows - 2 * rules
    headings = re.findall(r"^#+ ", re.sub(r"```.*?```", "", prose, flags=re.DOTALL), re.MULTILINE)
    assert deck.locator("section").locator("h1, h2, h3, h4").count() == len(headings)


def test_a_key_leads_to_the_next_slide(deck):
    number = ".slide-number-a"
    assert deck.locator(number).inner_text() == "1"
    deck.keyboard.press("Space")
    deck.wait_for_function(f"() => document.querySelector('{number}').innerText === '2'")


def test_nothing_is_cut_off_or_too_small_to_read(deck):  # the last of these tests: it takes the slides apart
    measured = deck.evaluate(MEASURE, BROAD)
    assert measured["out"] == []
    assert measured["smallest"] >= SMALLEST
