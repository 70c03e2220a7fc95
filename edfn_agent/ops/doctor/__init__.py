"""`edfn-agent doctor`: is everything that a configuration needs there, reachable and allowed.

In: a configuration. Out: checks (`checks`), each with what mends it (`mending`). `examination` runs them: `identities`,
`flow_logs`, `s3`, `groups` and `streams` look at AWS by `trials`, `collectors` and `machine` at this side. Never: a
change in AWS or on this machine.
"""
