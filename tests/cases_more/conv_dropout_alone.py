# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_dropout_alone', verdict='FAIL', culprit_op='dropout',
 source_url='https://github.com/apple/coremltools/blob/9.0/coremltools/converters/mil/frontend/torch/converter.py',
 expect='F.dropout with training=True is converted to nothing, which leaves an output that is an input')
class M(nn.Module):
    def forward(self, x): return F.dropout(x, 0.5, training=True)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 8),)
