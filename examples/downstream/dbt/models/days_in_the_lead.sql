SELECT model_id, count(*) AS days
FROM {{ source('openrouter', 'model_leaderboard') }}
WHERE scope = 'all' AND usage_rank = 1
GROUP BY model_id
