"""`ops capacity`: what a load needs, how long jobs wait, and where PostgreSQL is the limit."""
