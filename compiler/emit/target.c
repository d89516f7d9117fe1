/* Targets: the architectures of GPUs that NVRTC knows, and what all targets have in common; those of CPUs are made in
 * llvm_target.c. */
#include "compiler/emit/emit_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The form of what a GPU gets, by the architecture's name. */
static EmitForm form_of(const char *arch) {
  if (!strcmp(arch, "cuda-emulator")) return FORM_CUDA;
  return strncmp(arch, "compute_", strlen("compute_")) ? FORM_CUBIN : FORM_PTX;
}

EmitTarget *emit_target_cuda(const char *arch, Err *err) {
  EmitForm form = form_of(arch);
  const Nvrtc *nvrtc = form == FORM_CUDA ? NULL : nvrtc_open(err);
  if (form != FORM_CUDA && (!nvrtc || !nvrtc_check_arch(nvrtc, arch, err))) return NULL;
  EmitTarget *target = memory_alloc(sizeof *target);
  target->form = form;
  target->nvrtc = nvrtc;
  snprintf(target->arch, sizeof target->arch, "%s", arch);
  target->name = target->arch;
  return target;
}

void emit_target_free(EmitTarget *target) {
  free(target);
}

const char *emit_target_name(const EmitTarget *target) {
  return target->name;
}
int32_t emit_target_lanes(const EmitTarget *target) {
  return target->lanes;
}

ProgramDevice emit_target_device(const EmitTarget *target) {
  return target->form == FORM_OBJECT ? PROGRAM_CPU : PROGRAM_CUDA;
}

void emit_target_describe(const EmitTarget *target, Text *out) {
  if (target->form == FORM_OBJECT)
    emit_machine_describe(target, out);
  else
    nvrtc_describe(target, out);
}
