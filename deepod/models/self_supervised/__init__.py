"""Methods that learn a task made of the rows themselves: anomalies fail at it."""
