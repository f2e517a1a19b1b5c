"""How connections are served: gunicorn's threaded worker, to which a slow or hostile client costs no thread and little memory.

`worker` is the loop that all connections of a process share. It knows gunicorn, and nothing of Flask or of jobs.
"""
