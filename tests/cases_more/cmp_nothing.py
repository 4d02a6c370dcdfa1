# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='cmp_nothing', verdict='WARN', culprit_op='nothing',
 source_url='https://github.com/apple/coremltools',
 expect='a threshold above every weight', compress={'method': 'palettize', 'nbits': 4, 'weight_threshold': 2048})
def build(): torch.manual_seed(0); return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 8),)
