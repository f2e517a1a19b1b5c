"""Calls to the outside: which addresses may be called, one guarded HTTP call, its signature, what its answer means.

A URL comes from a client, so it may point at what only this machine can reach. `urls` reads it strictly, `guard`
resolves it and judges every address, `call` connects to an address that was judged and to no other, and does so
again for every redirect.
"""
