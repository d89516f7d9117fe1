/* Parameters and inputs. What is small, and may come before every step, is kept in pinned memory until the step takes it along;
 * what is large is sent at once, and waited for, since the caller's memory is his again afterwards. */
#include "runtime/cuda_private.h"

#include <string.h>

enum { ALIGNMENT = 64 };

CudaSlot *cuda_next_slot(CudaExecutor *executor, Err *err) {
  CudaSlot *slot = &executor->slots[executor->base.runs % executor->base.depth];
  if (!slot->busy) return slot;
  if (!cuda_check(&executor->driver, executor->driver.event_wait(slot->done), err, "the GPU has stopped")) return NULL;
  slot->busy = false;
  slot->writes_used = 0;
  return slot;
}

bool cuda_flush(CudaExecutor *executor, Err *err) {
  const CudaDriver *driver = &executor->driver;
  if (!executor->writes.count) return true;
  const CudaSlot *slot = cuda_next_slot(executor, err);
  if (!slot) return false;
  for (size_t i = 0; i < executor->writes.count; i++) {
    const CudaWrite *write = &executor->writes.data[i];
    if (!cuda_check(driver,
                    driver->copy_in(executor->parameters + (CudaPointer)write->to, slot->writes + write->from,
                                    (size_t)write->bytes, executor->stream),
                    err, "cannot send parameters to the GPU"))
      return false;
  }
  executor->writes.count = 0;
  return true;
}

/* Keeps the bytes for the next run. A parameter that follows the one before but for the padding between them, which belongs to
 * nobody, joins it: all logits of a model are one copy. */
static void keep_write(CudaExecutor *executor, CudaSlot *slot, int64_t to, const void *data, int64_t bytes) {
  size_t count = executor->writes.count;
  if (count && !executor->writes.data) die("%zu writes and no memory of them", count);
  CudaWrite *last = count ? &executor->writes.data[count - 1] : NULL;
  int64_t gap = last ? to - (last->to + last->bytes) : -1;
  if (gap >= 0 && gap < ALIGNMENT) {
    memset(slot->writes + slot->writes_used, 0, (size_t)gap);
    slot->writes_used += gap;
    last->bytes += gap + bytes;
  } else {
    const CudaWrite own = {to, slot->writes_used, bytes};
    vector_push(&executor->writes, own);
  }
  memcpy(slot->writes + slot->writes_used, data, (size_t)bytes);
  slot->writes_used += bytes;
}

static bool write_large(CudaExecutor *executor, CudaPointer to, const void *data, size_t bytes, Err *err) {
  return cuda_flush(executor, err) &&
         cuda_check(&executor->driver, executor->driver.copy_in(to, data, bytes, executor->stream), err,
                    "cannot send %zu bytes to the GPU", bytes) &&
         cuda_wait(executor, err);
}

bool cuda_write(Executor *base, const ProgramParameter *parameter, const float *stored, Err *err) {
  CudaExecutor *executor = (CudaExecutor *)base;
  int64_t bytes = 4 * parameter->elements;
  if (!cuda_enter(executor, err)) return false;
  if (bytes > CUDA_SMALL_BYTES)
    return write_large(executor, executor->parameters + (CudaPointer)parameter->offset, stored, (size_t)bytes, err);
  CudaSlot *slot = cuda_next_slot(executor, err);
  if (!slot) return false;
  if (slot->writes_used + bytes + ALIGNMENT > CUDA_WRITES_BYTES) {
    if (!cuda_flush(executor, err) || !cuda_wait(executor, err)) return false;
    slot->writes_used = 0;
  }
  keep_write(executor, slot, parameter->offset, stored, bytes);
  return true;
}

bool cuda_read(Executor *base, const ProgramParameter *parameter, float *stored, Err *err) {
  CudaExecutor *executor = (CudaExecutor *)base;
  CudaPointer from = executor->parameters + (CudaPointer)parameter->offset;
  return cuda_enter(executor, err) && cuda_flush(executor, err) &&
         cuda_check(&executor->driver, executor->driver.copy_out(stored, from, 4 * (size_t)parameter->elements, executor->stream),
                    err, "cannot read %s from the GPU", parameter->name) &&
         cuda_wait(executor, err);
}

/* A large input's copy on the device; graphs that were captured before it was there do not read it. */
static bool make_copy(CudaExecutor *executor, CudaStep *step, uint32_t input, Err *err) {
  const NamedBuffer *named = &step->step->inputs[input];
  if (!cuda_wait(executor, err) || !cuda_allocate(executor, &step->inputs[input].copy, 4 * named->elements, named->name, err))
    return false;
  cuda_free_graphs(executor, step);
  return cuda_check(&executor->driver,
                    executor->driver.fill(step->inputs[input].copy, 0, 4 * (size_t)named->elements, executor->stream), err,
                    "cannot clear memory");
}

bool cuda_input(Executor *base, const ProgramStep *step, uint32_t input, const void *data, int64_t elements, Err *err) {
  CudaExecutor *executor = (CudaExecutor *)base;
  CudaStep *own = &executor->steps[executor_step_index(base, step)];
  CudaInput *place = &own->inputs[input];
  if (strcmp(step->inputs[input].name, "x") == 0) own->images = -1;
  if (place->mail_at >= 0) {
    memcpy(own->mail + place->mail_at, data, 4 * (size_t)elements);
    return true;
  }
  return cuda_enter(executor, err) && (place->copy || make_copy(executor, own, input, err)) &&
         write_large(executor, place->copy, data, 4 * (size_t)elements, err);
}
