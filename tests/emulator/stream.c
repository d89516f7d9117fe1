/* Streams, graphs and events. A node holds copies of all that it needs; a graph is a list of nodes in the order in which they
 * were put into the stream, which is how they run. Of what CUDA forbids while a stream is captured, waiting and allocating are
 * refused here, too. */
#include "tests/emulator/stream.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

typedef VECTOR(Node) Nodes;

struct CUstream_st {
  bool captured;
  CUstreamCaptureMode mode;
  struct CUgraph_st *graph; /* that is recorded */
};
struct CUgraph_st {
  Nodes nodes;
};
struct CUgraphExec_st {
  Nodes nodes;
};
struct CUevent_st {
  struct timespec time;
  bool recorded, captured, done;
};

static int captures; /* streams that are captured in global mode */
static struct {
  Nodes nodes;
  size_t next; /* the first that did not run */
} kept;
static struct { bool late, settled; } control;

bool stream_any_captured(void) {
  return captures > 0;
}

bool stream_is_late(void) {
  if (!control.settled) {
    const char *late = getenv("ADWP_EMULATOR_LATE");
    control.late = late && !strcmp(late, "1");
    control.settled = true;
  }
  return control.late;
}

EMULATOR_EXPORT void adwp_emulator_set_late(bool late) {
  emulator_lock();
  stream_finish();
  control.late = late;
  control.settled = true;
  emulator_unlock();
}

/* ---- nodes ---- */

/* The parameters' values behind the pointers to them, in one piece. */
static void **copy_parameters(const Launch *launch) {
  size_t count = (size_t)launch->kernel->parameters;
  void **copy = memory_alloc(count * (sizeof(void *) + sizeof(uint64_t)) + 1);
  uint64_t *values = (uint64_t *)(copy + count);
  for (size_t i = 0; i < count; i++) {
    memcpy(&values[i], launch->parameters[i], launch->kernel->parameter_bytes[i]);
    copy[i] = &values[i];
  }
  return copy;
}

static void add_node(Nodes *nodes, const Node *node) {
  Node own = *node;
  if (own.kind == NODE_LAUNCH) own.launch.parameters = copy_parameters(&node->launch);
  vector_push(nodes, own);
}

static void free_nodes(Nodes *nodes) {
  for (size_t i = 0; i < nodes->count; i++) {
    if (nodes->data[i].kind == NODE_LAUNCH) free(nodes->data[i].launch.parameters);
    free(nodes->data[i].staged);
  }
  vector_free(nodes);
}

static CUresult run_launch(const Launch *launch) {
  Err err;
  bool no_compiler = false;
  if (!compile_all(&no_compiler, &err)) {
    emulator_remember(err.text);
    return no_compiler ? CUDA_ERROR_JIT_COMPILER_NOT_FOUND : CUDA_ERROR_INVALID_PTX;
  }
  return launch_run(launch, &err) ? CUDA_SUCCESS : CUDA_ERROR_LAUNCH_FAILED;
}

static CUresult run_node(const Node *node) {
  switch (node->kind) {
  case NODE_LAUNCH: return run_launch(&node->launch);
  case NODE_COPY: memmove(node->to, node->from, node->bytes); return CUDA_SUCCESS;
  case NODE_SET: memset(node->to, node->value, node->bytes); return CUDA_SUCCESS;
  case NODE_PRODUCT: product_run(&node->product); return CUDA_SUCCESS;
  case NODE_EVENT:
    node->event->done = true;
    clock_gettime(CLOCK_MONOTONIC, &node->event->time);
    return CUDA_SUCCESS;
  }
  return CUDA_ERROR_INVALID_VALUE;
}

CUresult stream_submit(CUstream stream, const Node *node) {
  if (stream && stream->captured)
    add_node(&stream->graph->nodes, node);
  else if (stream_is_late())
    add_node(&kept.nodes, node);
  else
    return run_node(node);
  return CUDA_SUCCESS;
}

/* Runs the first thing that is kept; after one that fails the others are lost, as on a device. */
static CUresult run_next(void) {
  CUresult result = run_node(&kept.nodes.data[kept.next++]);
  if (result != CUDA_SUCCESS) kept.next = kept.nodes.count;
  if (kept.next < kept.nodes.count) return result;
  free_nodes(&kept.nodes);
  kept.next = 0;
  return result;
}

CUresult stream_finish(void) {
  CUresult result = CUDA_SUCCESS;
  while (kept.nodes.count && result == CUDA_SUCCESS) result = run_next();
  return result;
}

/* ---- streams ---- */

EMULATOR_EXPORT CUresult cuStreamCreate(CUstream *stream, unsigned flags) {
  (void)flags;
  if (!stream) return CUDA_ERROR_INVALID_VALUE;
  *stream = memory_alloc(sizeof **stream);
  return CUDA_SUCCESS;
}

static void end_capture(CUstream stream) {
  captures -= stream->mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
  stream->captured = false;
  stream->graph = NULL;
}

EMULATOR_EXPORT CUresult cuStreamDestroy_v2(CUstream stream) {
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  emulator_lock();
  CUresult result = stream_finish();
  emulator_unlock();
  if (stream->captured) {
    CUgraph graph = stream->graph;
    end_capture(stream);
    cuGraphDestroy(graph);
  }
  free(stream);
  return result;
}

EMULATOR_EXPORT CUresult cuStreamSynchronize(CUstream stream) {
  if (stream && stream->captured) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  emulator_lock();
  CUresult result = stream_finish();
  emulator_unlock();
  return result;
}

EMULATOR_EXPORT CUresult cuStreamQuery(CUstream stream) {
  if (stream && stream->captured) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  emulator_lock();
  CUresult result = kept.nodes.count ? run_next() : CUDA_SUCCESS;
  if (result == CUDA_SUCCESS && kept.nodes.count) result = CUDA_ERROR_NOT_READY;
  emulator_unlock();
  return result;
}

EMULATOR_EXPORT CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags) {
  (void)stream, (void)flags;
  return event ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

EMULATOR_EXPORT CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode) {
  if (!stream) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (stream->captured) return CUDA_ERROR_ILLEGAL_STATE;
  stream->captured = true;
  stream->mode = mode;
  stream->graph = memory_alloc(sizeof *stream->graph);
  captures += mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
  return CUDA_SUCCESS;
}

EMULATOR_EXPORT CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
  if (!stream || !stream->captured || !graph) return CUDA_ERROR_ILLEGAL_STATE;
  *graph = stream->graph;
  end_capture(stream);
  return CUDA_SUCCESS;
}

EMULATOR_EXPORT CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status) {
  if (!status) return CUDA_ERROR_INVALID_VALUE;
  *status = stream && stream->captured ? CU_STREAM_CAPTURE_STATUS_ACTIVE : CU_STREAM_CAPTURE_STATUS_NONE;
  return CUDA_SUCCESS;
}

/* ---- graphs ---- */

EMULATOR_EXPORT CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *count) {
  if (!graph || !count) return CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; nodes && i < *count; i++) nodes[i] = i < graph->nodes.count ? (CUgraphNode)&graph->nodes.data[i] : NULL;
  if (!nodes || *count > graph->nodes.count) *count = graph->nodes.count;
  return CUDA_SUCCESS;
}

EMULATOR_EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags) {
  (void)flags;
  if (!exec || !graph) return CUDA_ERROR_INVALID_VALUE;
  *exec = memory_alloc(sizeof **exec);
  for (size_t i = 0; i < graph->nodes.count; i++) add_node(&(*exec)->nodes, &graph->nodes.data[i]);
  return CUDA_SUCCESS;
}

EMULATOR_EXPORT CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream) {
  if (!exec) return CUDA_ERROR_INVALID_HANDLE;
  emulator_lock();
  CUresult result = CUDA_SUCCESS;
  for (size_t i = 0; i < exec->nodes.count && result == CUDA_SUCCESS; i++) result = stream_submit(stream, &exec->nodes.data[i]);
  emulator_unlock();
  return result;
}

EMULATOR_EXPORT CUresult cuGraphExecDestroy(CUgraphExec exec) {
  if (!exec) return CUDA_ERROR_INVALID_HANDLE;
  free_nodes(&exec->nodes);
  free(exec);
  return CUDA_SUCCESS;
}

EMULATOR_EXPORT CUresult cuGraphDestroy(CUgraph graph) {
  if (!graph) return CUDA_ERROR_INVALID_HANDLE;
  free_nodes(&graph->nodes);
  free(graph);
  return CUDA_SUCCESS;
}

/* ---- events ---- */

EMULATOR_EXPORT CUresult cuEventCreate(CUevent *event, unsigned flags) {
  (void)flags;
  if (!event) return CUDA_ERROR_INVALID_VALUE;
  *event = memory_alloc(sizeof **event);
  return CUDA_SUCCESS;
}

EMULATOR_EXPORT CUresult cuEventRecord(CUevent event, CUstream stream) {
  if (!event) return CUDA_ERROR_INVALID_HANDLE;
  event->recorded = true;
  event->done = false;
  event->captured = stream && stream->captured;
  if (event->captured) return CUDA_SUCCESS; /* no node of a graph */
  emulator_lock();
  CUresult result = stream_submit(stream, &(Node){.kind = NODE_EVENT, .event = event});
  emulator_unlock();
  return result;
}

EMULATOR_EXPORT CUresult cuEventSynchronize(CUevent event) {
  if (!event) return CUDA_ERROR_INVALID_HANDLE;
  if (event->captured) return CUDA_ERROR_CAPTURED_EVENT;
  emulator_lock();
  CUresult result = CUDA_SUCCESS;
  while (event->recorded && !event->done && kept.nodes.count && result == CUDA_SUCCESS) result = run_next();
  emulator_unlock();
  return result;
}

/* A late device works a little whenever it is asked. */
EMULATOR_EXPORT CUresult cuEventQuery(CUevent event) {
  if (!event) return CUDA_ERROR_INVALID_HANDLE;
  if (event->captured) return CUDA_ERROR_CAPTURED_EVENT;
  if (!event->recorded || event->done) return CUDA_SUCCESS;
  emulator_lock();
  CUresult result = kept.nodes.count ? run_next() : CUDA_SUCCESS;
  emulator_unlock();
  return result != CUDA_SUCCESS ? result : event->done ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

EMULATOR_EXPORT CUresult cuEventElapsedTime_v2(float *milliseconds, CUevent start, CUevent end) {
  if (!start || !end || !milliseconds || !start->recorded || !end->recorded) return CUDA_ERROR_INVALID_HANDLE;
  if (!start->done || !end->done) return CUDA_ERROR_NOT_READY;
  *milliseconds =
      (float)((double)(end->time.tv_sec - start->time.tv_sec) * 1e3 + (double)(end->time.tv_nsec - start->time.tv_nsec) * 1e-6);
  return CUDA_SUCCESS;
}

EMULATOR_EXPORT CUresult cuEventElapsedTime(float *milliseconds, CUevent start, CUevent end) {
  return cuEventElapsedTime_v2(milliseconds, start, end);
}

EMULATOR_EXPORT CUresult cuEventDestroy_v2(CUevent event) {
  if (!event) return CUDA_ERROR_INVALID_HANDLE;
  emulator_lock();
  CUresult result = stream_finish();
  emulator_unlock();
  free(event);
  return result;
}
