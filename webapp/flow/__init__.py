"""Flow control: which queues and tasks may start jobs, who changed that, and the rules in force in each process."""
