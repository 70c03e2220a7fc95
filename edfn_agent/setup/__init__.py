"""What AWS needs so that flow logs arrive and the agent may read them, written by the product.

In: names (accounts, regions, VPCs, buckets, streams). Out: one `Plan` per way of delivery, which is plain data: a list
of resources in the order in which they are made. Three modules say it, each in its own words, from that one list:
`cloudformation` as templates, `commandline` as aws commands, `apply` by calling AWS. Never: a policy that names less
than it could, or a resource in one of the three that is not in the others without a word about it.

`model` is the list, `statements` the policies, `s3`, `cloudwatch`, `firehose`, `central` and `agent_policy` the ways,
`calls` what each resource is as calls of the AWS API, `access` reaches AWS, `look` sees what is there, `undo` is the
way back.
"""
