"""The console in Chromium: time to the first rows, work a frame, time from an event to the screen,
and what viewers cost."""

from typing import Final

PARTS: Final = {
    "page": "bytes of the first page over the network",
    "first": "milliseconds to the first rows of a run of 10,000 and of 50,000 steps",
    "frames": "the browser's work a frame while scrolling and while steps arrive; elements",
    "live": "from an event to the screen with 50 viewers; memory and CPU of the console",
    "silent": "memory of the console while a viewer reads nothing",
    "axe": "serious violations that axe finds",
}
