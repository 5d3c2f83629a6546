"""A run on several machines, described by TF_CONFIG: who takes part, what a worker waits for.

tf.distribute trains the classifier stage on all machines; the chief does everything else. Workers
read the results of earlier steps from model_dir, which all machines share.
"""

import collections
import json
import os
import time

from runtime import LOG, checkpoints, experiment, state
from runtime.errors import UserError
from runtime.signals import STOP

ENVIRONMENT = 'TF_CONFIG'
POLL_SECONDS = 0.2

# machines: 'host:port' of every process, the chief first; index: this process's place in it.
Task = collections.namedtuple('Task', ['machines', 'index'])


def take_task():
    """Return the Task that TF_CONFIG describes, or None.

    Without a Task, TF_CONFIG is removed from the environment, because the estimator of the
    classifier stage reads it, too.

    Raises:
        UserError: TF_CONFIG is not what the documentation of tf.distribute says.
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
        if (index < 0 or len(set(machines)) < len(machines) or len(chiefs) > 1
                or set(jobs) - {'chief', 'worker'}):
            raise ValueError
        for machine in machines:
            int(machine.rsplit(':', 1)[1])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        example = json.dumps({'cluster': {'worker': ['host1:2222', 'host2:2222']},
                              'task': {'type': 'worker', 'index': 0}})
        raise UserError(f'{ENVIRONMENT}={text[:200]} is not valid. Write it like {example}, with '
                        'workers and at most one chief.') from None
    if len(machines) == 1:
        return None
    os.environ[ENVIRONMENT] = text
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
                                'lists.')
        time.sleep(POLL_SECONDS)


def wait_for_step(model_dir, step, num_updates):
    """Wait, as a worker, until the steps before `step` are finished; return their records.

    `num_updates`: of the classifier stage of the step before, whose last checkpoint must show, too,
    since a shared folder may lag; None if this process did not train it.
    """
    LOG.info('worker: waiting for the chief before step %d', step + 1)
    expected = []
    if step:
        expected.append(state.record_path(model_dir, step - 1))
    if num_updates:
        expected.append(os.path.join(checkpoints.classifier_dir(model_dir, step - 1),
                                     f'model.ckpt-{num_updates}.index'))
    while True:
        STOP.check()
        if all(map(os.path.exists, expected)):
            records = state.finished_steps(model_dir)
            if len(records) >= step:
                return records
        time.sleep(POLL_SECONDS)
