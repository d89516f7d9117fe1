/* What is put into a stream: run at once, or, while the stream is captured, kept as a node of its graph. A device that is late
 * (control.h) keeps it until something waits for it. */
#ifndef ADWP_TESTS_EMULATOR_STREAM_H
#define ADWP_TESTS_EMULATOR_STREAM_H

#include "tests/emulator/driver.h"
#include "tests/emulator/emulator_private.h"

typedef enum NodeKind { NODE_LAUNCH, NODE_COPY, NODE_SET, NODE_PRODUCT, NODE_EVENT } NodeKind;

typedef struct Node {
  NodeKind kind;
  Launch launch;    /* `parameters`, once recorded, is the node's own */
  void *to;         /* copy, set */
  const void *from; /* copy */
  void *staged;     /* copy: `from`, the node's own, of host memory that the driver has read when the call returns */
  CUevent event;
  size_t bytes;
  unsigned char value;
  Product product;
} Node;

/* With the lock held. */
CUresult stream_submit(CUstream stream, const Node *node);
CUresult stream_finish(void); /* runs all that is kept */
bool stream_is_late(void);
bool stream_any_captured(void); /* in a mode that forbids what might wait for the device */

#endif
