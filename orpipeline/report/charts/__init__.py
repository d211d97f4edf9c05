"""The report's charts: Vega-Lite through Altair, compiled to Vega.

Each chart has a wide and a narrow form. It refers to its rows by name (`alt.NamedData`), because the page contains them
once for both forms. The reader's choices are the charts' parameters `measure` (`usage` or `token`), `scope` and `task`.
"""
