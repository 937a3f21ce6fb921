from schemas.plan import ShardOrder as ShardOrder
