"""What `edfn-agent demo` shows: made-up VPCs, their flow logs, and everything the agent does with them on loopback."""
