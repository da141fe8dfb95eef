"""What every algorithm passes on every host: tables of hosts and cases, one file a property."""
