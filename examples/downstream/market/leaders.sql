CREATE SCHEMA IF NOT EXISTS market;
CREATE TABLE IF NOT EXISTS market.leaders (as_of DATE PRIMARY KEY, model_id VARCHAR, usage_share DOUBLE);
INSERT OR REPLACE INTO market.leaders
SELECT as_of, max_by(model_id, usage_share), max(usage_share)
FROM openrouter.model_leaderboard
WHERE scope = 'all' AND as_of BETWEEN ? AND ?
GROUP BY as_of
