// <zmq.h>, and what Swift cannot import from it by itself: macros that call other macros.
#include <zmq.h>

/// The version these headers describe, packed by ZMQ_MAKE_VERSION.
static const int czmq_version = ZMQ_VERSION;
