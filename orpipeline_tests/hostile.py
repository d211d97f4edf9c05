"""Twenty names that an attacker could choose, one for each way to break an output."""

from __future__ import annotations

from orpipeline.text import plain

NAMES = {
    "HTML": '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=2">/x',
    "Markdown": "a/![x](http://evil.invalid/x.png) [y](javascript:alert(1)) **b** ~~s~~ <u>",
    "a table's cell": r"a/b | c \| d",
    "backticks": "a/`x` ``` $(id)",
    "ANSI escapes": "a/\x1b[31mred\x1b]0;title\x07",
    "bidirectional text": "a/\u202egnp.exe\u2066",
    "zero width": "a/\u200bzero\u2060width\ufeff\u3164",
    "line ends": "a/two\nlines\r\nof text\u2028end",
    "formulas": "=cmd|' /C calc'!A0/;+1+1,-2+3;@SUM(1)",
    "SQL": "a/'; DROP TABLE openrouter.snapshots; --",
    "Jinja": "{{7*7}}/{% raw %}${7*7}#{7*7}",
    "Vega": "a/datum.share' + alert(1) + '",
    "paths": "../../../../tmp/hostile",
    "control characters": "a/nul\x00\x08\x7f\x85end",
    "Slack": "a/<!channel> @channel <http://evil.invalid|click> &lt;",
    "length": "a/" + "long" * 2000,
    "emoji": "a/\U0001f600:boom:[red]markup[/red]\u05d0\u05d1",
    "formats": "a/%s%n%(x)s{0}{}",
    "addresses": "javascript:alert(1)//x",
    "quotes": 'o\'neil/"quoted"&amp;&quot;',
}
"""The names, by what they attack."""

VALID = [name for name in NAMES.values() if plain(name) == name and len(name) <= 200]
"""The short ones without control and invisible characters. The contracts accept the others with a warning."""
