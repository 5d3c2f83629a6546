"""A run on several machines, described by TF_CONFIG: who takes part, what a worker waits for.

tf.distribute trains the classifier stage on all machines; the chief does everything else. Workers
read the results of earlier steps from model_dir, which all machines share.
"""

import collections
import json
import os
import time

from runtime import LOG, experiment, state
from runtime.errors import UserError
from runtime.signals import STOP

ENVIRONMENT = 'TF_CONFIG'
POLL_SECONDS = 0.2
SAVE_SECONDS = 60  # how long a worker that was asked to stop waits for the chief

# machines: 'host:port' of every process, the chief first; index: this process's place in it.
Task = collections.namedtuple('Task', ['machines', 'index'])


def take_task():
    """Return the Task that TF_CONFIG describes, or None.

    Without a Task, TF_CONFIG is removed, because the classifier stage's estimator reads it, too.
    Raises UserError if TF_CONFIG is not valid.
    """
    text = os.environ.pop(ENVIRONMENT, '')
    try:
        config = json.loads(text or '{}')
        jobs = config.get('cluster', {})
        chiefs = jobs.get('chief', [])
        machines = chiefs + jobs.get('worker', [])
        if not machines:
            return None
        index = int(config['task']['index'])
        address = jobs[config['task']['type']][index]
        hosts, ports = zip(*(machine.rsplit(':', 1) for machine in machines))
        if (index < 0 or len(set(machines)) < len(machines) or len(chiefs) > 1
                or set(jobs) - {'chief', 'worker'} or not all(map(str.isdecimal, ports))):
            raise ValueError
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        example = json.dumps({'cluster': {'worker': ['host1:2222', 'host2:2222']},
                              'task': {'type': 'worker', 'index': 0}})
        raise UserError(f'{ENVIRONMENT}={text[:200]} is not valid. Write it like {example}, with '
                        'workers and at most one chief.') from None
    if len(machines) == 1:
        return None
    os.environ[ENVIRONMENT] = text
    os.environ['no_grpc_proxy'] = ','.join(hosts)  # gRPC would use an http_proxy
    return Task(machines, machines.index(address))


def wait_for_experiment(model_dir, settings, digests, overwrite):
    """Wait, as a worker, until the chief has made `model_dir` the experiment described.

    Raises UserError if the experiment there is another one and --overwrite does not replace it.
    """
    LOG.info('worker: waiting for the chief in %s', model_dir)
    while True:
        STOP.check()
        if experiment.has_begun(model_dir):
            stored = experiment.read_experiment(model_dir)
            try:
                different = experiment.differences(
                    experiment.identity(settings.from_dict(stored['settings']), stored['lists']),
                    experiment.identity(settings, digests))
            except (KeyError, TypeError) as error:  # from another version
                different = str(error)
            if not different:
                return
            if not overwrite:
                raise UserError(f'{model_dir}/experiment.json: this worker has other settings or '
                                f'lists: {different}. Start all processes with the same flags and '
                                'lists, and each experiment in a --model_dir of its own.')
        time.sleep(POLL_SECONDS)


def wait_for_checkpoint(directory, num_updates):
    """Wait, as a worker, until the checkpoint of this update shows in a stage's folder.

    If a stopped worker ended first, `srun --kill-on-bad-exit` would kill the chief while it saves.
    """
    path = os.path.join(directory, f'model.ckpt-{num_updates}.index')
    deadline = time.monotonic() + SAVE_SECONDS
    while not (os.path.exists(path) or STOP.asked() and time.monotonic() > deadline):
        time.sleep(POLL_SECONDS)


def wait_for_step(model_dir, step):
    """Wait, as a worker, for the steps before `step`; return the records of all finished ones."""
    LOG.info('worker: waiting for the chief before step %d', step + 1)
    while True:
        STOP.check()
        if not step or os.path.exists(state.record_path(model_dir, step - 1)):
            records = state.finished_steps(model_dir)
            if len(records) >= step:
                return records
        time.sleep(POLL_SECONDS)
