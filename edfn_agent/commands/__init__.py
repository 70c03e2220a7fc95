"""The commands of `edfn-agent`, one module each; `edfn_agent.cli` names them. Parse, call, print."""
