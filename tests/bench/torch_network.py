"""The network and the update of the classifier stage in PyTorch, for comparison on a CPU.

Used only by the benchmark rows `torch-...`, in a separate environment (requirements/bench.txt).
"""

import torch
from torch import nn
from torch.nn import functional

BLOCKS = {18: (2, 2, 2, 2)}


class Block(nn.Module):
    """A pre-activation residual block of two 3x3 convolutions."""

    def __init__(self, inputs, filters, stride, project):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(filters)
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, filters, 1, stride, bias=False) if project else None

    def forward(self, images):
        activation = functional.relu(self.norm1(images), inplace=True)
        shortcut = images if self.shortcut is None else self.shortcut(activation)
        outputs = functional.relu(self.norm2(self.conv1(activation)), inplace=True)
        return self.conv2(outputs) + shortcut


class Network(nn.Module):
    """ResNet v2 with the same layers as resnet_model.network."""

    def __init__(self, settings):
        super().__init__()
        if settings.network == 'cifar':
            blocks, filters, strides = [(settings.resnet_size - 2) // 6] * 3, 16, (1, 2, 2)
            layers = [nn.Conv2d(3, filters, 3, 1, 1, bias=False)]
        else:
            blocks, filters, strides = BLOCKS[settings.resnet_size], 64, (1, 2, 2, 2)
            layers = [nn.Conv2d(3, filters, 7, 2, 3, bias=False), nn.MaxPool2d(3, 2, 1)]
        inputs = filters
        for layer, (count, stride) in enumerate(zip(blocks, strides)):
            for i in range(count):
                layers.append(Block(inputs, filters * 2 ** layer, stride if i == 0 else 1, i == 0))
                inputs = filters * 2 ** layer
        self.layers = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(inputs)
        self.dense = nn.Linear(inputs, settings.num_classes)

    def forward(self, images):
        outputs = functional.relu(self.norm(self.layers(images)), inplace=True)
        return self.dense(outputs.mean((2, 3)))


class Updates:
    """Updates of the classifier stage on one constant batch; a call runs one and returns its loss.

    Args:
        settings, step: an experiment's Settings, and its step.
        images, labels: float32 [batch, side, side, 3] and int64 [batch].
    """

    def __init__(self, settings, step, images, labels):
        def channels_last(tensor):
            return tensor.to(memory_format=torch.channels_last)

        self.old, self.seen = settings.num_old(step), settings.num_seen(step)
        self.temperature = settings.temperature
        self.images = channels_last(torch.from_numpy(images).permute(0, 3, 1, 2))
        self.labels = torch.from_numpy(labels)
        self.network = channels_last(Network(settings))
        self.teacher = settings.distillation and channels_last(Network(settings)).eval()
        batch_norm_parameters, decayed = [], []
        for name, parameter in self.network.named_parameters():
            (batch_norm_parameters if 'norm' in name else decayed).append(parameter)
        weight_decay = settings.weight_decay * settings.num_classes / self.seen
        # The optimizer adds the gradient of weight decay, which is the fastest way in PyTorch.
        self.optimizer = torch.optim.SGD(
            [{'params': decayed, 'weight_decay': weight_decay}, {'params': batch_norm_parameters}],
            lr=settings.learning_rate * settings.batch_size / settings.learning_rate_batch,
            momentum=0.9)

    def __call__(self):
        logits = self.network(self.images)[:, :self.seen]
        loss = functional.cross_entropy(logits, self.labels)
        if self.teacher:
            with torch.no_grad():
                targets = functional.softmax(
                    self.teacher(self.images)[:, :self.old] / self.temperature, 1)
            kd = functional.cross_entropy(logits[:, :self.old] / self.temperature, targets)
            share = self.old / self.seen
            loss = share * kd + (1 - share) * loss
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.item()
