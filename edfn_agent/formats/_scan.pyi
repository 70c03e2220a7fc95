from edfn_agent.formats.text import Scanner as Scanner
