// Lays a chapter out on slides: sets the formulas, breaks each section into as many slides as it fills, starts reveal.js.
"use strict";

const HEIGHT = 720;
const SMALLEST = 76; // percent of a block's own size: a block that needs less is broken between its parts
const SMALLEST_PICTURE = 400; // px of height: a picture that gets less moves to the next slide
const HEADING = "h1, h2, h3, h4";
const SEPARABLE = "ul, ol, table, div.output, blockquote, details"; // what may be broken between its children

function tooWide(block) {
  const right = block.parentElement.getBoundingClientRect().right + 1;
  const parts = [...block.querySelectorAll("svg, code, img")].filter(part => !part.parentElement.closest("svg"));
  return block.scrollWidth > block.clientWidth + 1 || parts.some(part => part.getBoundingClientRect().right > right);
}

// Not scrollHeight: it counts what formulas' drawings hold beyond their edges, unseen.
function height(slide) {
  return slide.getBoundingClientRect().height;
}

function tooTall(slide) {
  return height(slide) > HEIGHT;
}

// Makes a block's text smaller while it is too large; false if it would be too small to read.
function shrink(block, tooLarge) {
  block.style.fontSize = "";
  const own = parseFloat(getComputedStyle(block).fontSize);
  for (let percent = 100; percent >= SMALLEST; percent -= 4) {
    if (percent < 100) block.style.fontSize = `${own * percent / 100}px`;
    if (!tooLarge()) return true;
  }
  return false;
}

// Gives a picture the height that is left, at most half as much again as it was drawn for.
function fitPicture(picture, slide) {
  const ratio = picture.naturalHeight / picture.naturalWidth;
  const drawn = Number(picture.getAttribute("width"));
  picture.style.width = "0";
  const left = HEIGHT - height(slide);
  const width = Math.min(1280, 1.5 * drawn, left / ratio);
  picture.style.width = `${width}px`;
  return width * ratio >= Math.min(SMALLEST_PICTURE, drawn * ratio);
}

let heading = ""; // the last one that was laid out

class Stack {
  // Slides below each other, filled block by block from the blocks of one section.
  constructor(section) {
    this.section = section;
    this.slide = null;
    this.begin();
  }

  begin() {
    const slide = document.createElement("section");
    (this.slide || this.section).after(slide);
    this.slide = slide;
    this.lead = 0;
  }

  // What stands above a slide that does not begin with a heading.
  remind() {
    const words = document.createElement("p");
    words.className = "running";
    words.textContent = heading;
    this.slide.append(words);
    this.lead = 1;
  }

  get empty() {
    return this.slide.childElementCount === this.lead;
  }

  add(block) {
    if (block.matches(HEADING)) heading = block.textContent;
    else if (!this.slide.childElementCount) this.remind();
    this.slide.append(block);
    if (this.fits(block)) return;
    block.remove();
    const last = this.slide.lastElementChild;
    const taken = last && last.matches(HEADING) ? last : null; // a heading is never the last on its slide
    if (!this.empty && !(taken && this.slide.childElementCount === this.lead + 1)) {
      this.begin();
      if (taken) this.slide.append(taken);
      else this.remind();
      this.slide.append(block);
      if (this.fits(block)) return;
      block.remove();
    }
    this.slide.append(block);
    if (block.matches("img") || shrink(block, () => tooWide(block) || tooTall(this.slide))) return;
    this.split(block);
  }

  fits(block) {
    if (block.matches("img")) return fitPicture(block, this.slide);
    return shrink(block, () => tooWide(block)) && !tooTall(this.slide);
  }

  // Moves a block's last children to a copy of it on the next slide.
  split(block) {
    const parent = block.matches("table") ? block.querySelector("tbody") : block;
    if (!block.matches(SEPARABLE)) return;
    const rest = [];
    while (tooTall(this.slide) && parent.childElementCount > 1) {
      rest.unshift(parent.lastElementChild);
      parent.lastElementChild.remove();
    }
    const copy = block.cloneNode(true);
    if (block.matches("ol")) copy.start = (block.start || 1) + block.childElementCount;
    (block.matches("table") ? copy.querySelector("tbody") : copy).replaceChildren(...rest);
    if (!rest.length) return;
    this.begin();
    this.add(copy);
  }
}

// The blocks of a section; those of a fragment appear together, unless they begin a slide.
function blocksOf(section) {
  const blocks = [];
  let fragment = -1;
  for (const child of [...section.childNodes]) {
    const appears = child.matches && child.matches("div.fragment");
    if (appears) fragment += 1;
    for (const node of appears ? [...child.childNodes] : [child]) {
      if (node.nodeType === Node.TEXT_NODE && node.textContent.trim()) {
        const paragraph = document.createElement("p");
        paragraph.textContent = node.textContent;
        blocks.push(paragraph);
      } else if (node.nodeType === Node.ELEMENT_NODE) {
        if (appears) node.dataset.appears = fragment;
        blocks.push(node);
      }
    }
  }
  return blocks;
}

function layOut(section) {
  const stack = new Stack(section);
  for (const block of blocksOf(section)) stack.add(block);
  section.remove();
}

function setFragments(slide) {
  const first = slide.querySelector(":scope > :not(.running)");
  for (const block of slide.querySelectorAll(":scope > [data-appears]")) {
    if (block.dataset.appears !== first.dataset.appears) {
      block.classList.add("fragment");
      block.dataset.fragmentIndex = block.dataset.appears;
    }
  }
}

async function start() {
  await MathJax.startup.promise;
  await Promise.all([...document.images].map(picture => picture.decode()));
  document.querySelectorAll(".slides > section > section").forEach(layOut);
  document.querySelectorAll(".slides > section > section").forEach(setFragments);
  document.querySelector(".reveal").classList.remove("measuring");
  await Reveal.initialize({
    width: 1280, height: HEIGHT, margin: 0.05, center: false, hash: true, slideNumber: "c/t", transition: "none",
    backgroundTransition: "none",
  });
  document.documentElement.dataset.ready = "true";
}

start();
