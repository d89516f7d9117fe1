/* NVRTC, which compiles CUDA C to a cubin or PTX: opened at run time, needs neither a GPU nor its driver, and a program a kernel
 * can be compiled on several threads at once. $ADWP_NVRTC names the library's file, if it is set; else the dynamic linker's path
 * is searched and the usual folders of the CUDA toolkit.
 *
 * The options give the interpreter's bits: no contraction, division and square root rounded to nearest, subnormal numbers kept.
 * That our text does not compile is a bug; that memory or a part of NVRTC is missing is not. */
#include "compiler/emit/cuda_private.h"
#include "compiler/emit/emit_private.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct NvrtcProgramBody *NvrtcProgram; /* NVRTC's own */

/* NVRTC's results that do not mean a bug of ours. */
enum { NVRTC_SUCCESS = 0, NVRTC_OUT_OF_MEMORY = 1, NVRTC_BUILTIN_FAILURE = 7 };
enum { OLDEST_ARCH = 80, MAX_ARCHS = 128 };

struct Nvrtc {
  bool minimal; /* it knows --minimal: no parts of C++ that the text does not use, and a tenth less time */
  int (*version)(int *major, int *minor);
  int (*arch_count)(int *count);
  int (*archs)(int *archs);
  int (*create)(NvrtcProgram *program, const char *text, const char *name, int headers, const char *const *header_texts,
                const char *const *header_names);
  int (*destroy)(NvrtcProgram *program);
  int (*compile)(NvrtcProgram program, int count, const char *const *options);
  int (*log_size)(NvrtcProgram program, size_t *size);
  int (*log)(NvrtcProgram program, char *log);
  int (*cubin_size)(NvrtcProgram program, size_t *size);
  int (*cubin)(NvrtcProgram program, char *cubin);
  int (*ptx_size)(NvrtcProgram program, size_t *size);
  int (*ptx)(NvrtcProgram program, char *ptx);
  const char *(*error)(int result);
};

static const struct {
  const char *name;
  size_t offset;
} functions[] = {
    {"nvrtcVersion", offsetof(Nvrtc, version)},
    {"nvrtcGetNumSupportedArchs", offsetof(Nvrtc, arch_count)},
    {"nvrtcGetSupportedArchs", offsetof(Nvrtc, archs)},
    {"nvrtcCreateProgram", offsetof(Nvrtc, create)},
    {"nvrtcDestroyProgram", offsetof(Nvrtc, destroy)},
    {"nvrtcCompileProgram", offsetof(Nvrtc, compile)},
    {"nvrtcGetProgramLogSize", offsetof(Nvrtc, log_size)},
    {"nvrtcGetProgramLog", offsetof(Nvrtc, log)},
    {"nvrtcGetCUBINSize", offsetof(Nvrtc, cubin_size)},
    {"nvrtcGetCUBIN", offsetof(Nvrtc, cubin)},
    {"nvrtcGetPTXSize", offsetof(Nvrtc, ptx_size)},
    {"nvrtcGetPTX", offsetof(Nvrtc, ptx)},
    {"nvrtcGetErrorString", offsetof(Nvrtc, error)},
};

static const char *const options[] = {
    "--fmad=false", "--prec-div=true", "--prec-sqrt=true", "--ftz=false", "--disable-warnings", "--ptxas-options=-v",
};
enum { OPTIONS = sizeof options / sizeof *options };

/* A group takes as many registers as its greediest kernel, and a function, which has no bounds of its own, as many as there are:
 * three blocks of 256 threads are to fit a processor. */
static const char part_registers[] = "--maxrregcount=80";

/* ---- the library ---- */

static void *open_in(const char *folder, const char *below, const char *const *names, size_t count) {
  for (size_t i = 0; i < count; i++) {
    char path[1024];
    int length = snprintf(path, sizeof path, "%s%s%s", folder, below, names[i]);
    void *library = length < (int)sizeof path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (library) return library;
  }
  return NULL;
}

void *cuda_open_toolkit(const char *const *names, size_t count) {
  static const char *const variables[] = {"CUDA_HOME", "CUDA_PATH"};
  void *library = open_in("", "", names, count);
  for (size_t i = 0; !library && i < sizeof variables / sizeof *variables; i++)
    if (getenv(variables[i])) library = open_in(getenv(variables[i]), "/lib64/", names, count);
  return library ? library : open_in("/usr/local/cuda", "/lib64/", names, count);
}

static void *find_library(Err *err) {
  static const char *const names[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"};
  const char *named = getenv("ADWP_NVRTC");
  if (named) {
    void *library = dlopen(named, RTLD_NOW | RTLD_LOCAL);
    if (!library) err_set(err, "cannot open NVRTC, which $ADWP_NVRTC says is `%s`: %s", named, dlerror());
    return library;
  }
  void *library = cuda_open_toolkit(names, sizeof names / sizeof *names);
  if (!library)
    err_set(err, "there is no NVRTC (libnvrtc.so.13 or .12), which compiles kernels for a GPU: install the CUDA toolkit, or its "
                 "part cuda-nvrtc, and set CUDA_HOME where it is not in /usr/local/cuda");
  return library;
}

static bool load(void *library, Nvrtc *nvrtc, Err *err) {
  for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
    void *function = dlsym(library, functions[i].name);
    if (!function) return err_set(err, "the NVRTC found has no %s: CUDA 12 or newer is needed", functions[i].name);
    memcpy((char *)nvrtc + functions[i].offset, &function, sizeof function);
  }
  int major = 0, minor = 0;
  if (nvrtc->version(&major, &minor) != NVRTC_SUCCESS || major < 12)
    return err_set(err, "the NVRTC found is version %d.%d: CUDA 12 or newer is needed", major, minor);
  nvrtc->minimal = major >= 13;
  return true;
}

/* The one library of the process: dynamic linkers keep one, too. It is never closed. */
const Nvrtc *nvrtc_open(Err *err) {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  static Nvrtc loaded;
  static bool is_loaded;
  pthread_mutex_lock(&lock);
  void *library = is_loaded ? NULL : find_library(err);
  if (library) {
    is_loaded = load(library, &loaded, err);
    if (!is_loaded) dlclose(library);
  }
  const Nvrtc *nvrtc = is_loaded ? &loaded : NULL;
  pthread_mutex_unlock(&lock);
  return nvrtc;
}

/* ---- architectures ---- */

/* Those that it knows and for which kernels are written; returns their number. */
static int known_archs(const Nvrtc *nvrtc, int known[static MAX_ARCHS]) {
  int count = 0, kept = 0;
  if (nvrtc->arch_count(&count) != NVRTC_SUCCESS || count > MAX_ARCHS || nvrtc->archs(known) != NVRTC_SUCCESS) return 0;
  for (int i = 0; i < count; i++)
    if (known[i] >= OLDEST_ARCH) known[kept++] = known[i];
  return kept;
}

static void list_archs(const Nvrtc *nvrtc, Text *out) {
  int known[MAX_ARCHS], count = known_archs(nvrtc, known);
  for (int i = 0; i < count; i++) text_printf(out, "%ssm_%d", i ? " " : "", known[i]);
  if (count == 0) text_add(out, "none");
}

bool nvrtc_check_arch(const Nvrtc *nvrtc, const char *arch, Err *err) {
  int known[MAX_ARCHS], count = known_archs(nvrtc, known);
  for (int i = 0; i < count; i++) {
    char name[2][24];
    snprintf(name[0], sizeof name[0], "sm_%d", known[i]);
    snprintf(name[1], sizeof name[1], "compute_%d", known[i]);
    if (!strcmp(arch, name[0]) || !strcmp(arch, name[1])) return true;
  }
  Text text = {0};
  list_archs(nvrtc, &text);
  err_set(err, "unknown GPU architecture `%.40s`: the NVRTC here knows %s, and compute_ for sm_", arch, text.data);
  text_free(&text);
  return false;
}

bool emit_find_nvrtc(Text *version, Text *archs, Err *err) {
  const Nvrtc *nvrtc = nvrtc_open(err);
  if (!nvrtc || !cuda_find_linker(err)) return false;
  int major = 0, minor = 0;
  nvrtc->version(&major, &minor);
  text_printf(version, "%d.%d", major, minor);
  list_archs(nvrtc, archs);
  return true;
}

void nvrtc_describe(const EmitTarget *target, Text *out) {
  if (target->form == FORM_CUDA) {
    text_add(out, "cuda text\n");
    return;
  }
  int major = 0, minor = 0;
  target->nvrtc->version(&major, &minor);
  text_printf(out, "nvrtc %d.%d %s", major, minor, target->arch);
  for (int i = 0; i < OPTIONS; i++) text_printf(out, " %s", options[i]);
  text_printf(out, " %s %s\n", part_registers, hash_name(emit_prelude, strlen(emit_prelude)).hex);
}

/* ---- ptxas's log ---- */

/* The number that stands before `what`; 0 where there is none. */
static int32_t number_before(const char *log, const char *end, const char *what) {
  const char *found = strstr(log, what);
  if (!found || found >= end) return 0;
  const char *digits = found;
  while (digits > log && digits[-1] >= '0' && digits[-1] <= '9') digits--;
  return (int32_t)strtol(digits, NULL, 10);
}

/* The kernel's own lines, from "Function properties for SYMBOL" to the line that says how many registers. */
static EmitResources read_resources(const char *log, const char *symbol) {
  EmitResources resources = {0};
  char head[80];
  snprintf(head, sizeof head, "Function properties for %s", symbol);
  const char *begin = strstr(log, head), *used = begin ? strstr(begin, "Used ") : NULL;
  if (!used) return resources;
  const char *end = used + strcspn(used, "\n");
  resources.stack_bytes = number_before(begin, end, " bytes stack frame");
  resources.spill_stores = number_before(begin, end, " bytes spill stores");
  resources.spill_loads = number_before(begin, end, " bytes spill loads");
  resources.registers = number_before(used, end, " registers");
  resources.shared_bytes = number_before(used, end, " bytes smem");
  return resources;
}

/* ---- compiling ---- */

static char *log_of(const Nvrtc *nvrtc, NvrtcProgram program) {
  size_t size = 0;
  nvrtc->log_size(program, &size);
  char *log = memory_alloc(size + 1);
  if (size) nvrtc->log(program, log);
  return log;
}

/* False: of the world. */
static bool check(const Nvrtc *nvrtc, NvrtcProgram program, int result, const char *name, Err *err) {
  if (result == NVRTC_SUCCESS) return true;
  if (result == NVRTC_OUT_OF_MEMORY) return err_set(err, "kernel %s: NVRTC has too little memory to compile it", name);
  if (result == NVRTC_BUILTIN_FAILURE)
    return err_set(err, "kernel %s: NVRTC cannot work: is libnvrtc-builtins, a part of the CUDA toolkit, beside libnvrtc?", name);
  die("kernel %s: NVRTC: %s\n%s", name, nvrtc->error(result), program ? log_of(nvrtc, program) : "");
}

/* What a program is compiled for: one kernel, one kernel that would spill, or functions that are linked into groups. */
typedef enum Purpose { KERNEL_ALONE, KERNEL_ROOMY, GROUP_PART } Purpose;

static int compile(const EmitTarget *target, NvrtcProgram program, Purpose purpose) {
  char arch[64];
  const char *digits = strchr(target->arch, '_');
  snprintf(arch, sizeof arch, "--gpu-architecture=%s%s", target->form == FORM_PTX ? "compute" : "sm", digits ? digits : "");
  const char *all[OPTIONS + 5] = {arch};
  int count = 1;
  if (target->nvrtc->minimal) all[count++] = "--minimal";
  if (purpose == KERNEL_ROOMY) all[count++] = "-DROOMY";
  if (purpose == GROUP_PART) all[count++] = part_registers;
  if (purpose == GROUP_PART && target->form == FORM_CUBIN) all[count++] = "--relocatable-device-code=true";
  for (int i = 0; i < OPTIONS; i++) all[count++] = options[i];
  bool ptx = target->form == FORM_PTX; /* for which ptxas, the last option's, does not run */
  return target->nvrtc->compile(program, count - ptx, all);
}

/* The bytes that a compiled program became. PTX ends in a zero byte, which is not counted. */
static bool get_image(const EmitTarget *target, NvrtcProgram program, const char *name, EmitObject *object, Err *err) {
  const Nvrtc *nvrtc = target->nvrtc;
  bool ptx = target->form == FORM_PTX;
  size_t size = 0;
  if (!check(nvrtc, program, ptx ? nvrtc->ptx_size(program, &size) : nvrtc->cubin_size(program, &size), name, err)) return false;
  object->data = memory_alloc(size + 1);
  object->size = ptx && size ? size - 1 : size;
  if (check(nvrtc, program, ptx ? nvrtc->ptx(program, object->data) : nvrtc->cubin(program, object->data), name, err))
    return true;
  free(object->data);
  object->data = NULL;
  return false;
}

/* `symbol`: whose resources are wanted; null: of none. */
static bool compile_text(const EmitTarget *target, const char *text, Purpose purpose, const char *name, const char *symbol,
                         EmitObject *object, Err *err) {
  const Nvrtc *nvrtc = target->nvrtc;
  NvrtcProgram program = NULL;
  if (!check(nvrtc, NULL, nvrtc->create(&program, text, "kernel.cu", 0, NULL, NULL), name, err)) return false;
  bool ok = check(nvrtc, program, compile(target, program, purpose), name, err) && get_image(target, program, name, object, err);
  if (ok && symbol && target->form == FORM_CUBIN) {
    char *log = log_of(nvrtc, program);
    object->resources = read_resources(log, symbol);
    free(log);
  }
  nvrtc->destroy(&program);
  return ok;
}

/* ptxas aims at many blocks side by side even where that costs accesses to memory: a kernel that spills is compiled again with
 * room for one, and what spills less is kept. */
static bool compile_roomy(const EmitTarget *target, const char *text, const LoopKernel *k, const char *symbol, EmitObject *object,
                          Err *err) {
  EmitObject roomy = {0};
  if (!compile_text(target, text, KERNEL_ROOMY, k->name, symbol, &roomy, err)) return false;
  bool better = roomy.resources.spill_stores < object->resources.spill_stores;
  free(better ? object->data : roomy.data);
  if (better) *object = roomy;
  return true;
}

bool nvrtc_image(const EmitTarget *target, const LoopKernel *k, const char *symbol, EmitObject *object, Err *err) {
  Text text = {0};
  if (target->form != FORM_CUDA) text_printf(&text, "%s\n", emit_prelude);
  cuda_text(k, symbol, &text);
  if (target->form == FORM_CUDA) {
    *object = (EmitObject){.data = text.data, .size = text.length};
    return true;
  }
  bool ok = compile_text(target, text.data, KERNEL_ALONE, k->name, symbol, object, err);
  if (ok && object->resources.spill_stores && !compile_roomy(target, text.data, k, symbol, object, err)) {
    free(object->data);
    *object = (EmitObject){0};
    ok = false;
  }
  text_free(&text);
  return ok;
}

bool nvrtc_part(const EmitTarget *target, const char *name, const Text *text, EmitObject *object, Err *err) {
  Text whole = {0};
  if (target->form == FORM_CUDA) {
    text_add(&whole, text->data);
    *object = (EmitObject){.data = whole.data, .size = whole.length};
    return true;
  }
  text_printf(&whole, "#define BODIES\n%s\n%s", emit_prelude, text->data);
  bool ok = compile_text(target, whole.data, GROUP_PART, name, NULL, object, err);
  text_free(&whole);
  return ok;
}
