"""The report's charts as Vega-Lite specifications: plain data, validated against Vega-Lite's schema by a test.

Most charts have a wide and a narrow form. A chart refers to its rows by the name `rows`, which the page or the picture
fills in. The reader's choices are the parameters `measure` (`usage` or `token`), `scope` and `task`.
"""
