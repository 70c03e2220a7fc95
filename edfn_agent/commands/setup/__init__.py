"""`edfn-agent setup`: what AWS needs, as templates, as commands, or carried out."""

from __future__ import annotations

import click

from edfn_agent.commands.options import Group
from edfn_agent.commands.setup.policy import policy
from edfn_agent.commands.setup.ways import central, cloudwatch, firehose, firehose_http, kinesis, s3


@click.group(cls=Group)
def setup() -> None:
    """Write what AWS needs: policies, roles, flow logs, queues, streams.

    Each command prints a CloudFormation template (or, with --format cli, aws commands); --apply carries the same out,
    after showing what it will do and asking, and --undo takes it back. What the agent's configuration needs to read the
    result is printed at the end, on standard error.

    \b
    edfn-agent setup s3 --account 123456789012 --region eu-west-1 \\
        --bucket my-flow-logs --vpc vpc-0a1b2c3d > s3.yaml
    edfn-agent setup central --account 999999999999 --region eu-west-1 \\
        --bucket central-flow-logs --output stacks/ \\
        --vpc 111111111111/eu-west-1/vpc-0a1b2c3d \\
        --vpc 222222222222/eu-west-1/vpc-4e5f6071
    edfn-agent setup policy -c edfn-agent.yaml \\
        --agent-identity arn:aws:iam::999999999999:role/edfn-agent
    """


for _command in (s3, cloudwatch, kinesis, firehose, firehose_http, central, policy):
    setup.add_command(_command)
