/* A stand-in for libedgetpu: takes the operators that the Edge TPU compiler made, and answers with what the
 * source model gives on the CPU.
 *
 * The source model runs in a process of its own (answers.py), over a socket: LiteRT's Python wheel exports no
 * interface to run a model from C. A kernel starts the process, tells it which tensors it takes and gives,
 * then sends the inputs of each call and reads the outputs.
 *
 * Options, of the delegate or in EDGEML_CORAL_STANDIN ("source=/models/a.tflite;latency_us=2000"):
 *   source      the .tflite that was compiled
 *   attached    usb (default), pci or none: which Edge TPU is there
 *   latency_us  how long a call takes at least
 *   fail_after  calls after which the device is gone: of all delegates with the same text in the environment,
 *               and it stays away; given as an option of a delegate, of that one alone
 *   plugged     any text, to tell a device from one that was plugged in before
 *   xnnpack     on (default) or off: whose kernels answer, as LiteRT's option of that name
 *   python      the interpreter that runs answers.py
 * Those of libedgetpu are taken as it takes them: device; Performance, Usb.* without effect. */

#define _GNU_SOURCE
#include <errno.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "delegate_interface.h"

#ifndef STANDIN_PYTHON
#define STANDIN_PYTHON "python3"
#endif
#define EXPORT __attribute__((visibility("default")))
#define TEXT_BYTES 1024

extern char **environ;

typedef struct Edgetpu {
  atomic_long calls;
  struct Edgetpu *next;
  char told[]; /* what the environment said when it was first used */
} Edgetpu;

typedef struct {
  TfLiteDelegate interface;
  char source[TEXT_BYTES], attached[TEXT_BYTES], python[TEXT_BYTES], device[TEXT_BYTES], xnnpack[TEXT_BYTES];
  long latency_us, fail_after;
  atomic_long own_calls, *calls; /* of the delegate, or of the device that it shares */
  int kernels; /* that interpreters still hold */
} Standin;

typedef struct {
  Standin *standin;
  pid_t process;
  int socket; /* -1: not started */
} Kernel;

/* --- options */

static bool number(const char *text, long *into) {
  char *end;
  *into = strtol(text, &end, 10);
  return end != text && *end == '\0' && *into >= 0;
}

static bool take(Standin *standin, const char *key, const char *value) {
  struct { const char *key; char *text; } texts[] = {{"source", standin->source},
                                                     {"attached", standin->attached},
                                                     {"python", standin->python},
                                                     {"device", standin->device},
                                                     {"xnnpack", standin->xnnpack}};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    if (strcmp(key, texts[i].key) == 0) return snprintf(texts[i].text, TEXT_BYTES, "%s", value) < TEXT_BYTES;
  if (strcmp(key, "latency_us") == 0) return number(value, &standin->latency_us);
  if (strcmp(key, "fail_after") == 0) return number(value, &standin->fail_after);
  if (strcmp(key, "Performance") == 0)
    return strcmp(value, "Low") == 0 || strcmp(value, "Medium") == 0 || strcmp(value, "High") == 0 ||
           strcmp(value, "Max") == 0;
  return strcmp(key, "plugged") == 0 || strncmp(key, "Usb.", 4) == 0;
}

/* The device of a text, which stays as it is left: all that the process was told of, never freed. */
static Edgetpu *edgetpu(const char *told) {
  static Edgetpu *all;
  static atomic_flag busy = ATOMIC_FLAG_INIT;
  while (atomic_flag_test_and_set(&busy)) {
  }
  Edgetpu *found = all;
  while (found && strcmp(found->told, told) != 0) found = found->next;
  if (!found) {
    found = calloc(1, sizeof *found + strlen(told) + 1);
    strcpy(found->told, told);
    found->next = all;
    all = found;
  }
  atomic_flag_clear(&busy);
  return found;
}

static bool take_all(Standin *standin, char **keys, char **values, int count, char *problem) {
  char *text = getenv("EDGEML_CORAL_STANDIN");
  char *copy = strdup(text ? text : ""), *rest = copy, *pair;
  bool fits = true;
  while (fits && (pair = strsep(&rest, ";")) != NULL) {
    char *value = strchr(pair, '=');
    if (value) *value++ = '\0';
    fits = *pair == '\0' || (value && take(standin, pair, value));
    if (!fits) snprintf(problem, TEXT_BYTES, "EDGEML_CORAL_STANDIN: cannot take %.200s", pair);
  }
  standin->calls = standin->fail_after < 0 ? &standin->own_calls : &edgetpu(text)->calls;
  for (int i = 0; fits && i < count; i++) {
    if (strcmp(keys[i], "fail_after") == 0) standin->calls = &standin->own_calls;
    fits = take(standin, keys[i], values[i]);
    if (!fits) snprintf(problem, TEXT_BYTES, "stand-in: no option %.200s=%.200s", keys[i], values[i]);
  }
  free(copy);
  return fits;
}

/* device is "", ":N", "usb", "usb:N", "pci" or "pci:N", counted among those that are there: here one */
static bool is_there(const Standin *standin) {
  size_t kind = strcspn(standin->device, ":");
  const char *index = standin->device + kind;
  if (strcmp(standin->attached, "none") == 0) return false;
  if (standin->fail_after >= 0 && atomic_load(standin->calls) > standin->fail_after) return false;
  if (*index && strcmp(index, ":0") != 0) return false;
  return kind == 0 || (kind == strlen(standin->attached) && strncmp(standin->device, standin->attached, kind) == 0);
}

/* --- the process that runs the source model */

static bool send_all(int socket, const void *data, size_t bytes) {
  for (const char *at = data; bytes > 0;) {
    ssize_t sent = send(socket, at, bytes, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    at += sent;
    bytes -= (size_t)sent;
  }
  return true;
}

static bool receive_all(int socket, void *data, size_t bytes) {
  for (char *at = data; bytes > 0;) {
    ssize_t got = recv(socket, at, bytes, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    at += got;
    bytes -= (size_t)got;
  }
  return true;
}

static TfLiteStatus ended(TfLiteContext *context) {
  context->ReportError(context, "stand-in: the process that runs the source model ended");
  return kTfLiteError;
}

/* An answer begins with the length of an error's text; 0: none, the outputs follow. */
static TfLiteStatus answered(TfLiteContext *context, int socket) {
  char text[TEXT_BYTES];
  uint32_t length;
  if (!receive_all(socket, &length, sizeof length)) return ended(context);
  if (length == 0) return kTfLiteOk;
  if (length >= sizeof text || !receive_all(socket, text, length)) length = 0;
  text[length] = '\0';
  context->ReportError(context, "stand-in: %s", text);
  return kTfLiteError;
}

static void stop(Kernel *kernel) {
  if (kernel->socket < 0) return;
  close(kernel->socket); /* it ends at the end of its input */
  kernel->socket = -1;
  while (waitpid(kernel->process, NULL, 0) < 0 && errno == EINTR) {
  }
}

static bool start(Kernel *kernel) {
  char *const command[] = {kernel->standin->python, "-P", "-m", "edgeml.testing.coral.answers",
                           kernel->standin->source, kernel->standin->xnnpack, NULL};
  posix_spawn_file_actions_t actions;
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return false;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
  int failed = posix_spawnp(&kernel->process, command[0], &actions, NULL, command, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  if (failed) {
    close(ends[0]);
    return false;
  }
  kernel->socket = ends[0];
  return true;
}

/* --- the kernel */

static bool is_input(const TfLiteContext *context, int index) {
  return index >= 0 && context->tensors[index].allocation_type != kTfLiteMmapRo;
}

static bool tell(const TfLiteContext *context, int socket, const TfLiteIntArray *indices, bool all) {
  uint32_t count = 0;
  for (int i = 0; i < indices->size; i++) count += all || is_input(context, indices->data[i]);
  bool sent = send_all(socket, &count, sizeof count);
  for (int i = 0; sent && i < indices->size; i++) {
    if (!all && !is_input(context, indices->data[i])) continue;
    const TfLiteTensor *tensor = &context->tensors[indices->data[i]];
    uint32_t sizes[2] = {(uint32_t)tensor->bytes, (uint32_t)strlen(tensor->name)};
    sent = send_all(socket, sizes, sizeof sizes) && send_all(socket, tensor->name, sizes[1]);
  }
  return sent;
}

static void *kernel_init(TfLiteContext *context, const char *buffer, size_t length) {
  Kernel *kernel = calloc(1, sizeof *kernel);
  (void)context, (void)length;
  kernel->standin = ((const TfLiteDelegateParams *)(const void *)buffer)->delegate->data;
  kernel->standin->kernels++;
  kernel->socket = -1;
  return kernel;
}

static void kernel_free(TfLiteContext *context, void *data) {
  Kernel *kernel = data;
  (void)context;
  stop(kernel);
  kernel->standin->kernels--;
  free(kernel);
}

static TfLiteStatus kernel_prepare(TfLiteContext *context, TfLiteNode *node) {
  Kernel *kernel = node->user_data;
  stop(kernel);
  if (!start(kernel)) {
    context->ReportError(context, "stand-in: cannot start %s", kernel->standin->python);
    return kTfLiteError;
  }
  if (!tell(context, kernel->socket, node->inputs, false) || !tell(context, kernel->socket, node->outputs, true))
    return ended(context);
  return answered(context, kernel->socket);
}

static TfLiteStatus kernel_invoke(TfLiteContext *context, TfLiteNode *node) {
  Kernel *kernel = node->user_data;
  Standin *standin = kernel->standin;
  if (atomic_fetch_add(standin->calls, 1) >= standin->fail_after && standin->fail_after >= 0) {
    context->ReportError(context, "Failed to execute request: the device is gone.");
    return kTfLiteError;
  }
  struct timespec pause = {standin->latency_us / 1000000, standin->latency_us % 1000000 * 1000};
  nanosleep(&pause, NULL);
  for (int i = 0; i < node->inputs->size; i++) {
    if (!is_input(context, node->inputs->data[i])) continue;
    const TfLiteTensor *tensor = &context->tensors[node->inputs->data[i]];
    if (!send_all(kernel->socket, tensor->data, tensor->bytes)) return ended(context);
  }
  if (answered(context, kernel->socket) != kTfLiteOk) return kTfLiteError;
  for (int i = 0; i < node->outputs->size; i++) {
    TfLiteTensor *tensor = &context->tensors[node->outputs->data[i]];
    if (!receive_all(kernel->socket, tensor->data, tensor->bytes)) return ended(context);
  }
  return kTfLiteOk;
}

/* --- the delegate */

static TfLiteStatus prepare(TfLiteContext *context, TfLiteDelegate *delegate) {
  TfLiteRegistration kernel = {.init = kernel_init,
                               .free = kernel_free,
                               .prepare = kernel_prepare,
                               .invoke = kernel_invoke,
                               .custom_name = "EdgeTpuDelegateForCustomOp",
                               .version = 1};
  TfLiteIntArray *plan;
  if (context->GetExecutionPlan(context, &plan) != kTfLiteOk) return kTfLiteError;
  TfLiteIntArray *taken = malloc(sizeof *taken + (size_t)plan->size * sizeof(int));
  taken->size = 0;
  TfLiteStatus status = kTfLiteOk;
  for (int i = 0; status == kTfLiteOk && i < plan->size; i++) {
    TfLiteNode *node;
    TfLiteRegistration *registration;
    status = context->GetNodeAndRegistration(context, plan->data[i], &node, &registration);
    if (status == kTfLiteOk && registration->custom_name &&
        strcmp(registration->custom_name, "edgetpu-custom-op") == 0)
      taken->data[taken->size++] = plan->data[i];
  }
  if (status == kTfLiteOk && taken->size > 0)
    status = context->ReplaceNodeSubsetsWithDelegateKernels(context, kernel, taken, delegate);
  free(taken);
  return status;
}

EXPORT TfLiteDelegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count,
                                                     void (*report_error)(const char *)) {
  char problem[TEXT_BYTES] = "";
  Standin *standin = calloc(1, sizeof *standin);
  strcpy(standin->attached, "usb");
  strcpy(standin->xnnpack, "on");
  strcpy(standin->python, STANDIN_PYTHON);
  standin->fail_after = -1;
  /* LiteRT's Python passes the count as an int, whose upper half in a register is nobody's */
  bool fits = take_all(standin, keys, values, (int)(uint32_t)count, problem);
  if (!fits && report_error) report_error(problem);
  if (!fits || !is_there(standin)) { /* libedgetpu says nothing where it finds no device */
    free(standin);
    return NULL;
  }
  standin->interface.data = standin;
  standin->interface.Prepare = prepare;
  /* without it the runtime prepares the custom operator before the delegate takes it, and fails */
  standin->interface.flags = kTfLiteDelegateFlagsAllowDynamicTensors;
  return &standin->interface;
}

EXPORT void tflite_plugin_destroy_delegate(TfLiteDelegate *delegate) {
  if (!delegate) return;
  Standin *standin = delegate->data;
  if (standin->kernels > 0) {
    fprintf(stderr, "stand-in: the delegate is destroyed while an interpreter uses it\n");
    abort();
  }
  free(standin);
}
