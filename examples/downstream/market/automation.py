import dagster as dg

changed = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.data_version_changed())
new_day = dg.AutomationCondition.eager().replace("any_deps_updated", changed).resolve_through_virtual()

sensor = dg.AutomationConditionSensorDefinition(
    "market_automation",
    target=dg.AssetSelection.key_prefixes("market"),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=15,
)
