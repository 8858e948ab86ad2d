"""The floor: the least that three members can do for a durable put, to measure the real ones against.

One fixed leader and two followers; no elections, no recovery, no flow control. What it does for every put: gRPC
over HTTP/2, one record in the write-ahead log, fdatasync on each member before it is counted, commit by a
majority, an LMDB transaction on each member. Python, uvloop, LMDB and protobuf as in the member itself, so that
what is left between the two is what the real program adds. No design to copy, and nothing to keep data in.

    python -m benchmarks.floor follower PORT FOLDER
    python -m benchmarks.floor leader   PORT FOLDER FOLLOWERS_PORT,FOLLOWERS_PORT
"""
