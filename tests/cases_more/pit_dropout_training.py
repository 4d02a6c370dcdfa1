# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='pit_dropout_training', verdict='PASS', culprit_op=None,
 source_url='https://github.com/apple/coremltools/pull/2732',
 expect='a module left in training mode is converted in evaluation mode')
def build():
    torch.manual_seed(0); return nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)).train()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 8),)
