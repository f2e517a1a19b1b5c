-- Is the server that this connection leads to one that takes no writes? Reads one setting; locks nothing.
SELECT current_setting('transaction_read_only')::bool;
