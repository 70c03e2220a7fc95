"""Discovery of a large organisation: 50 accounts by 4 regions with 20 VPCs each, against moto on this machine.

    python benchmarks/discovery_scale.py [--accounts 50] [--vpcs 20] [--canned SECONDS]

Prints wall time, calls, the most calls of a kind for one account and region, processor time of discovery alone, memory.
moto runs in a process of its own; it is much slower than AWS and takes most of the wall time on a small machine. With
`--canned SECONDS` a server with prepared answers and that latency takes its place, to show what discovery itself costs.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import resource
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "inventory"))

from organisation import Cloud, role

REGIONS = ("us-east-1", "us-west-2", "eu-west-1", "eu-central-1")
SERVICES = ("ec2", "sts", "iam", "logs", "s3", "sqs", "sns", "events", "kinesis", "firehose")


ITEMS = {
    "DescribeVpcs": ("vpcSet", "<vpcId>{vpc}</vpcId><cidrBlock>10.{k}.0.0/16</cidrBlock>"),
    "DescribeFlowLogs": (
        "flowLogSet",
        "<flowLogId>fl-{id}</flowLogId><resourceId>{vpc}</resourceId><logDestinationType>s3</logDestinationType>{bucket}",
    ),
    "DescribeNetworkInterfaces": (
        "networkInterfaceSet",
        "<networkInterfaceId>eni-{id}</networkInterfaceId><vpcId>{vpc}</vpcId><subnetId>subnet-{id}</subnetId>",
    ),
    "DescribeSubnets": ("subnetSet", "<subnetId>subnet-{id}</subnetId><vpcId>{vpc}</vpcId>"),
}
BUCKET = "<logDestination>arn:aws:s3:::central-logs</logDestination>"


def account(n: int) -> str:
    return f"{100000000000 + n}"


def serve(accounts: int, vpcs: int) -> None:
    """moto with VPCs, and flow logs to one bucket that announces to a queue. Made from inside: HTTP takes minutes."""
    from moto.backends import get_backend
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    cloud = Cloud(f"http://{host}:{port}")
    s3, sqs = cloud.client(account(0), "us-east-1", "s3"), cloud.client(account(0), "us-east-1", "sqs")
    queue = sqs.create_queue(QueueName="flow-logs")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    s3.create_bucket(Bucket="central-logs")
    s3.put_bucket_notification_configuration(
        Bucket="central-logs",
        NotificationConfiguration={"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]},
    )
    for n in range(accounts):
        for region in REGIONS:
            ec2 = get_backend("ec2")[account(n)][region]
            for k in range(vpcs):
                vpc = ec2.create_vpc(f"10.{k}.0.0/16")
                ec2.create_flow_logs(
                    resource_type="VPC",
                    resource_ids=[vpc.id],
                    traffic_type="ALL",
                    deliver_logs_permission_arn=None,
                    log_destination_type="s3",
                    log_destination="arn:aws:s3:::central-logs",
                    log_group_name=None,
                    log_format=None,
                    max_aggregation_interval=600,
                )
    print(cloud.url, flush=True)
    threading.Event().wait()


class Canned:
    """The answers of AWS for such an organisation, after `latency` seconds, counted by account, region and action."""

    def __init__(self, vpcs: int, latency: float) -> None:
        self.vpcs, self.latency = vpcs, latency
        self.calls: Counter[tuple[str, str, str]] = Counter()
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                form = {name: values[0] for name, values in parse_qs(body).items()}
                scope = re.search(r"Credential=([^/]+)/\d+/([^/]+)/", self.headers.get("Authorization", ""))
                key, region = scope.groups() if scope else ("", "")
                action = form.get("Action") or self.headers.get("X-Amz-Target", "").rpartition(".")[2]
                text = outer.answer(key, region, action, form)
                self.send_response(200)
                self.send_header("Content-Type", "text/xml" if text.startswith("<") else "application/x-amz-json-1.0")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())
                self.wfile.flush()

            def do_GET(self) -> None:
                outer.answer("", "", "s3", {})
                text = "<LocationConstraint/>" if "location" in self.path else "<NotificationConfiguration/>"
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())
                self.wfile.flush()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, key: str, region: str, action: str, form: dict[str, str]) -> str:
        owner = key.removeprefix("AKIA")
        with self._lock:
            self.calls[owner, region, action] += 1
        time.sleep(self.latency)
        if action == "AssumeRole":
            id = form["RoleArn"].split(":")[4]
            return (
                f"<R><AssumeRoleResult><Credentials><AccessKeyId>AKIA{id}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
                "<SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>"
                "</AssumeRoleResult></R>"
            )
        if action == "GetCallerIdentity":
            return (
                f"<R><GetCallerIdentityResult><Arn>arn:aws:iam::{owner}:user/x</Arn><Account>{owner}</Account>"
                "</GetCallerIdentityResult></R>"
            )
        item = ITEMS.get(action)
        if item is None:
            return "{}" if "Action" not in form else "<R/>"
        ids = ((f"{owner}{region}{k}", k) for k in range(self.vpcs))
        rows = "".join(f"<item>{item[1]}</item>".format(id=id, vpc=f"vpc-{id}", k=k, bucket=BUCKET) for id, k in ids)
        return f"<R><{item[0]}>{rows}</{item[0]}></R>"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accounts", type=int, default=50)
    parser.add_argument("--vpcs", type=int, default=20, help="in each of four regions")
    parser.add_argument("--canned", type=float, metavar="SECONDS", help="prepared answers after so long, without moto")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.accounts, options.vpcs)
    os.environ.update(
        AWS_ACCESS_KEY_ID="AKIA999999999999", AWS_SECRET_ACCESS_KEY="hub", AWS_EC2_METADATA_DISABLED="true"
    )
    from faultproxy import FaultProxy

    if options.canned is not None:
        canned = Canned(options.vpcs, options.canned)
        measure(canned.url, options.accounts, lambda: canned.calls)
        return
    command = [sys.executable, __file__, "--serve", "--accounts", str(options.accounts), "--vpcs", str(options.vpcs)]
    started = time.monotonic()
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        if not url:
            sys.exit("moto did not start")
        print(f"seeded in {time.monotonic() - started:.0f} s")
        with FaultProxy(url) as proxy:
            proxy.bucket_owners = {"central-logs": account(0)}
            measure(proxy.url, options.accounts, proxy.counted)
    finally:
        server.terminate()


def measure(url: str, accounts: int, counted: object) -> None:
    from edfn_agent.inventory.accounts import Accounts, AwsSettings, RoleSource
    from edfn_agent.inventory.discovery import Discovery

    settings = AwsSettings(
        region="us-east-1",
        regions=REGIONS,
        roles=tuple(RoleSource(role(account(n))) for n in range(accounts)),
        endpoints=dict.fromkeys(SERVICES, url),
    )
    discovery = Discovery(Accounts(settings))
    snapshot = None
    for run in ("first", "second"):
        before, cpu = Counter(counted()), time.process_time()  # type: ignore[operator]
        snapshot = discovery.run(snapshot)
        calls = Counter(counted()) - before  # type: ignore[operator]
        per_place = Counter(
            {key: n for key, n in calls.items() if key[2] not in ("AssumeRole", "s3") and "Bucket" not in key[2]}
        )
        most = per_place.most_common(1)[0]
        print(
            f"{run}: {snapshot.seconds:.1f} s, {snapshot.api_calls} calls "
            f"({snapshot.api_calls / snapshot.seconds:.0f}/s), {time.process_time() - cpu:.1f} s of processor "
            f"(this process, with its proxy), {len(snapshot.vpcs)} VPCs, {len(snapshot.flow_logs)} flow logs, "
            f"{len(snapshot.findings)} findings; most calls of a kind for an account and region: {most[1]}"
        )
    print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB at most")


if __name__ == "__main__":
    main()
