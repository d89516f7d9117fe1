/* Pool: `threads` - 1 workers and the caller share out the tasks of one segment after another.
 *
 * Tasks are taken from one counter as they are wanted, so a worker that does not run (another process has its core) costs only
 * its share: nobody waits for it unless it has taken a task. Workers spin for a few microseconds between segments and then sleep.
 */
#ifndef ADWP_RUNTIME_POOL_H
#define ADWP_RUNTIME_POOL_H

#include "runtime/base/err.h"

#include <stdint.h>

typedef struct Pool Pool;

/* Runs the tasks first <= t < last; `worker` is 0 for the caller and 1.. for the others. */
typedef void PoolFunction(void *context, int32_t worker, int64_t first, int64_t last);

enum { POOL_MOST_THREADS = 256 };

Pool *pool_new(int32_t threads, Err *err);
void pool_free(Pool *pool); /* null is allowed; no pool_run may be under way */
int32_t pool_threads(const Pool *pool);

/* Returns when all `tasks` are done. One caller at a time, and never from within a task. What was written before it is seen by
 * the tasks, and what the tasks wrote is seen after it. */
void pool_run(Pool *pool, int64_t tasks, PoolFunction *function, void *context);

#endif
