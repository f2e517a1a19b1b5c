"""`ops logs`: what the processes wrote, merged by time, from the files before the last rotation on.

Standard library only, but for colours: the command line reads times before anything is installed.
"""
